"""The picture of an event's way, as SVG: every position is written down here, in pixels from the top left."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH, HEIGHT = 960, 640
TITLE_PX, TEXT_PX = 14, 12
CHARACTER_EM = 0.65
"""Wider than a character of the usual sans-serif fonts is on average; a test holds every text to it."""
_LINE_PX = 17


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with a title and lines of text, centred; `look` is its class in the style sheet.

    One that holds others (`room`, `transaction`) has its title at `title_at`, beginning or, `right`, ending there.
    """

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    look: str = "step"
    title_at: tuple[int, int] | None = None
    right: bool = False


@dataclass(frozen=True, slots=True)
class Arrow:
    """A line through these points, with its head at the last one; the label begins, or is centred, at `at`."""

    points: tuple[tuple[int, int], ...]
    label: str = ""
    at: tuple[int, int] = (0, 0)
    upright: bool = False
    dashed: bool = False


BOXES: Final = (
    Box(10, 10, 940, 150, "a service that publishes: order", look="room", title_at=(22, 30)),
    Box(10, 172, 940, 126, "the broker: RabbitMQ or Kafka", look="room", title_at=(22, 192)),
    Box(10, 310, 940, 172, "a service that subscribes: notification", look="room", title_at=(938, 470),
        right=True),
    Box(10, 494, 940, 136, "dead letters", look="room", title_at=(938, 514), right=True),
    Box(30, 58, 150, 64, "HTTP request", ("POST /orders",)),
    Box(240, 40, 330, 106, "one transaction", look="transaction", title_at=(252, 60)),
    Box(256, 70, 142, 62, "state", ("the order's row",), "row"),
    Box(412, 70, 142, 62, "outbox", ("the event's bytes",), "row"),
    Box(640, 46, 280, 90, "relay",
        ("publishes in order per key,", "waits for the confirmation,", "then deletes the row")),
    Box(640, 204, 280, 76, "channel", ("RabbitMQ: exchange order.events", "Kafka: topic order-events"), "broker"),
    Box(110, 204, 300, 76, "the subscriber's place",
        ("queue notification.order", "topic order-events, group notification"), "broker"),
    Box(110, 370, 100, 66, "decode", ("and check",)),
    Box(236, 370, 108, 66, "claim", ("in Redis",)),
    Box(370, 346, 316, 122, "one transaction", look="transaction", title_at=(382, 366)),
    Box(382, 376, 90, 76, "inbox", ("is it new?",), "row"),
    Box(482, 376, 94, 76, "handler", ("its rows",), "row"),
    Box(586, 376, 90, 76, "outbox", ("its events",), "row"),
    Box(712, 370, 100, 66, "mark done", ("in Redis",)),
    Box(838, 370, 100, 66, "settle", ("ack, commit",)),
    Box(400, 538, 256, 76, "dead-letter place",
        ("queue notification.order.dlq", "topic notification.order.dlt"), "broker"),
    Box(110, 538, 230, 76, "dead-letter service", ("keeps, groups, alerts,", "gives back what is due")),
)  # fmt: skip

ARROWS: Final = (
    Arrow(((180, 90), (240, 90))),
    Arrow(((570, 90), (640, 90))),
    Arrow(((780, 136), (780, 204)), "at least once", (792, 171)),
    Arrow(((640, 242), (410, 242)), "for each subscriber", (470, 234)),
    Arrow(((160, 280), (160, 370)), "in batches", (170, 302)),
    Arrow(((210, 403), (236, 403))),
    Arrow(((344, 403), (370, 403))),
    Arrow(((686, 403), (712, 403))),
    Arrow(((812, 403), (838, 403))),
    Arrow(((528, 468), (528, 538)), "fails for good, or has to wait", (540, 520)),
    Arrow(((400, 576), (340, 576))),
    Arrow(((110, 576), (60, 576), (60, 242), (110, 242)), "back to this subscriber alone", (50, 402),
          upright=True),
    Arrow(((888, 370), (888, 326), (300, 326), (300, 280)),
          "settled last, when the effect is committed", (430, 320), dashed=True),
)  # fmt: skip

NOTE: Final = (
    "Redis may be empty or away:",
    "the inbox row alone keeps",
    "every effect single.",
)
_NOTE_AT = (700, 562)

_STYLE = f"""
  svg {{
    font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
    color-scheme: light dark;
  }}
  text {{ font-size: {TEXT_PX}px; fill: #1f2933 }}
  .title {{ font-size: {TITLE_PX}px; font-weight: 600 }}
  .middle {{ text-anchor: middle }}
  .end {{ text-anchor: end }}
  .quiet {{ fill: #52606d }}
  .paper {{ fill: #ffffff }}
  .room {{ fill: #f4f6f8 }}
  .step {{ fill: #ffffff; stroke: #7b8794 }}
  .row {{ fill: #e3f1e5; stroke: #3f8f4f }}
  .transaction {{ fill: none; stroke: #3f8f4f; stroke-width: 1.5; stroke-dasharray: 6 4 }}
  .broker {{ fill: #e4edf9; stroke: #3b6fb6 }}
  .arrow {{ fill: none; stroke: #52606d; stroke-width: 1.5 }}
  .dashed {{ stroke-dasharray: 3 4 }}
  .head {{ fill: #52606d }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e4e7eb }}
    .quiet {{ fill: #9aa5b1 }}
    .paper {{ fill: #11161c }}
    .room {{ fill: #1a212a }}
    .step {{ fill: #232c37; stroke: #7b8794 }}
    .row {{ fill: #1d3323; stroke: #57a868 }}
    .transaction {{ stroke: #57a868 }}
    .broker {{ fill: #1b2a40; stroke: #6396da }}
    .arrow {{ stroke: #9aa5b1 }}
    .head {{ fill: #9aa5b1 }}
  }}"""


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text at its baseline; `anchor` says which part of it is at `x`."""

    x: int
    y: int
    words: str
    anchor: str = "start"
    look: str = "quiet"
    upright: bool = False

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the space that it may take."""
        size = TITLE_PX if self.look == "title" else TEXT_PX
        length = len(self.words) * size * CHARACTER_EM
        before = {"start": 0.0, "middle": length / 2, "end": length}[self.anchor]
        if self.upright:
            return self.x - size, self.y - before, self.x + 3, self.y - before + length
        return self.x - before, self.y - size, self.x - before + length, self.y + 3


def texts() -> list[Text]:
    """Every text of the picture."""
    found = [text for box in BOXES for text in _texts_of(box)]
    for arrow in ARROWS:
        if arrow.label:
            anchor = "middle" if arrow.upright else "start"
            found.append(Text(*arrow.at, arrow.label, anchor, upright=arrow.upright))
    x, y = _NOTE_AT
    return found + [Text(x, y + _LINE_PX * number, words) for number, words in enumerate(NOTE)]


def _texts_of(box: Box) -> list[Text]:
    if box.title_at is not None:
        return [Text(*box.title_at, box.title, "end" if box.right else "start")]
    middle = box.x + box.width // 2
    top = box.y + (box.height - _LINE_PX * len(box.lines)) // 2 + 5
    lines = [Text(middle, top + _LINE_PX * n, line, "middle", "line") for n, line in enumerate(box.lines, 1)]
    return [Text(middle, top, box.title, "middle", "title"), *lines]


def render() -> str:
    """The whole picture."""
    says = "An event on its way from a request to its effect"
    frame = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{says}"'
    head = 'id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"'
    parts = [
        f"<svg {frame}>",
        f"<style>{_STYLE}\n</style>",
        f'<defs><marker {head}><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        *(
            f'<rect class="{box.look}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6"/>'
            for box in BOXES
        ),
        *(_line(arrow) for arrow in ARROWS),
        *(_text(text) for text in texts()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line(arrow: Arrow) -> str:
    look = "arrow dashed" if arrow.dashed else "arrow"
    points = " ".join(f"{x},{y}" for x, y in arrow.points)
    return f'<polyline class="{look}" points="{points}" marker-end="url(#head)"/>'


def _text(text: Text) -> str:
    turn = f' transform="rotate(-90 {text.x} {text.y})"' if text.upright else ""
    look = f'class="{text.look} {text.anchor}"'
    return f'<text {look} x="{text.x}" y="{text.y}"{turn}>{escape(text.words)}</text>'
