"""Draws lines, marks, bars and words as SVG that a screen reader can name, in the colours of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from math import ceil, floor, log10
from typing import Literal

WIDTH = 360
"""Units, about the pixels of a phone: a text of 12 is readable there, and larger elsewhere."""
Anchor = Literal["start", "middle", "end"]
Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with the words that stand for it where it cannot be seen."""

    title: str
    description: str
    height: float
    parts: Sequence[str]

    def render(self, identity: str) -> str:
        """The `<svg>`; `identity` is unique on its page."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {_n(self.height)}" role="img" '
            f'aria-labelledby="{identity}-title {identity}-words">'
            f'<title id="{identity}-title">{escape(self.title)}</title>'
            f'<desc id="{identity}-words">{escape(self.description)}</desc>{"".join(self.parts)}</svg>'
        )


def text(x: float, y: float, words: str, anchor: Anchor = "start", kind: str = "") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}"{_anchor(anchor)}{_class(kind)}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"{_class(kind)}/>'


def path(points: Sequence[tuple[float, float]], kind: str = "") -> str:
    return f'<polyline points="{" ".join(f"{_n(x)},{_n(y)}" for x, y in points)}"{_class(kind)}/>'


def bar(x: float, y: float, width: float, height: float, kind: str = "") -> str:
    size = f'width="{_n(max(width, 0.5))}" height="{_n(height)}"'
    return f'<rect x="{_n(x)}" y="{_n(y)}" {size}{_class(kind)}/>'


def mark(x: float, y: float, kind: str, *, square: bool, radius: float = 4) -> str:
    """A filled circle, or a square: what a colour says is said by the shape as well."""
    if square:
        return bar(x - radius, y - radius, 2 * radius, 2 * radius, kind)
    return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"{_class(kind)}/>'


def linear(low: float, high: float, start: float, end: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Of positive values only."""
    inner = linear(log10(low), log10(high), start, end)
    return lambda value: inner(log10(value))


def ticks(high: float, about: int = 4) -> list[float]:
    """Round numbers from 0 up to the first one at or above `high`."""
    step = _round_step(high / about) if high > 0 else 1.0
    return [number * step for number in range(ceil(high / step - 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from at or below `low` to at or above `high`; both positive."""
    found: list[float] = []
    for exponent in count(floor(log10(low))):
        for factor in (1, 2, 5):
            value = factor * 10.0**exponent
            found.append(value)
            if value >= high:
                start = max((place for place, each in enumerate(found) if each <= low), default=0)
                return found[start:]
    raise AssertionError("unreachable: powers of ten grow")


def number(value: float) -> str:
    """As many digits as a person wants to read."""
    if value == 0 or abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def _round_step(least: float) -> float:
    magnitude = 10.0 ** floor(log10(least))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= least * (1 - 1e-9))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _anchor(anchor: Anchor) -> str:
    return "" if anchor == "start" else f' text-anchor="{anchor}"'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
