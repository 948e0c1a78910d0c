"""The layers in words: what each part of the whole does by itself, and what other modes do."""

from __future__ import annotations

from collections.abc import Iterable

from compare.document import BrokerFigures, LayerFigures, Summary
from compare.report.svg import number
from experiment.facts import TITLES

_LAYERS = {
    "publish": "published by the client library alone, confirmed",
    "consume": "consumed by the client library alone, no effect",
    "pipeline": "Tandem's pipeline alone, effects and all, no broker",
}
_WHOLE = {"relay_events_per_s": "Tandem, outbox to broker", "effects_per_s": "Tandem, draining"}
MODE_HEADS = ["mode", "stays in order", "consumers", "messages/s", "lowest to highest", "limiter"]


def heads(summary: Summary) -> list[str]:
    """The heads of the table of layers."""
    return ["messages/s", *(f"{TITLES[broker]}{what}" for broker in summary.brokers for what in ("", " limiter"))]


def rows(summary: Summary) -> list[list[str]]:
    """A row for each layer, and for the whole beside them; empty where no layer was run."""
    sides = list(summary.brokers.items())
    if not any(one.layers for _, one in sides):
        return []
    found = [[title, *_flat(_layer(one, layer) for _, one in sides)] for layer, title in _LAYERS.items()]
    whole = [
        [title, *_flat(_whole(summary, name, broker, one) for broker, one in sides)]
        for name, title in _WHOLE.items()
    ]
    return [*found, *whole]


def mode_rows(summary: Summary) -> list[list[str]]:
    """A row for each mode and number of consumers, those that keep the same order together; empty without any."""
    found = [
        (broker, each) for broker, one in summary.brokers.items() for each in one.layers if each.layer == "consume"
    ]
    if all(each.as_tandem for _, each in found):
        return []
    found.sort(key=lambda pair: str(pair[1].order))
    return [
        [
            f"{TITLES[broker]}: {each.mode}",
            _ORDERS[each.order or "none"],
            str(each.consumers),
            _cell(each.per_s),
            " to ".join(_cell(value) for value in each.range),
            each.limiter,
        ]
        for broker, each in found
    ]


_ORDERS = {"by key": "events of a key", "whole stream": "the whole stream", "none": "nothing"}


def _layer(one: BrokerFigures, layer: str) -> tuple[str, str]:
    found: LayerFigures | None = next((e for e in one.layers if e.layer == layer and e.as_tandem), None)
    return (_cell(found.per_s), found.limiter) if found else ("none", "none")


def _whole(summary: Summary, name: str, broker: str, one: BrokerFigures) -> tuple[str, str]:
    row = summary.comparison.get(name)
    limiter = {str(each): said for each, said in row.limiters.items()}.get(broker) if row else None
    return _cell(getattr(one, name)), limiter or "not known"


def _flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [cell for pair in pairs for cell in pair]


def _cell(value: float | None) -> str:
    return "none" if value is None else number(value)
