"""The report's colours, light and dark, and how well one stands out from another (WCAG 2.2, 1.4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LIGHT: Final[Mapping[str, str]] = {
    "page": "#ffffff",
    "panel": "#f3f5f8",
    "line": "#75808f",
    "text": "#16191d",
    "muted": "#4a525c",
    "link": "#0b4f8a",
    "bad": "#a3150f",
    "rabbit": "#b34700",
    "kafka": "#00609c",
    "band": "#dfe6ee",
}
DARK: Final[Mapping[str, str]] = {
    "page": "#14171b",
    "panel": "#1e2329",
    "line": "#8792a2",
    "text": "#edf0f3",
    "muted": "#b4bdc8",
    "link": "#8ec5f7",
    "bad": "#ff9d94",
    "rabbit": "#f5a03c",
    "kafka": "#63b8ee",
    "band": "#303a46",
}
"""Orange and blue are told apart with every common kind of colour blindness; shapes and dashes say it, too."""


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two `#rrggbb`, from 1 (none) to 21."""
    darker, lighter = sorted([_luminance(one), _luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def variables() -> str:
    """Both palettes as CSS: dark where the reader asks for it, and always light on paper."""
    dark = _block(DARK)
    return f":root{_block(LIGHT)}@media screen and (prefers-color-scheme:dark){{:root{dark}}}"


def _block(palette: Mapping[str, str]) -> str:
    return "{" + "".join(f"--{name}:{value};" for name, value in palette.items()) + "}"


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
