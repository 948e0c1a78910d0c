"""The layers in words: what each part of the whole does by itself, and what other modes do."""

from __future__ import annotations

from collections.abc import Iterable

from compare.document import BrokerFigures, LayerFigures, Summary
from compare.report.svg import number
from experiment.facts import TITLES
from experiment.figures import HIGH_SHARE, LOW_SHARE, SHORT_S

_LAYERS = {
    "publish": "published by the client library alone, confirmed",
    "consume": "consumed by the client library alone, no effect",
    "pipeline": "Tandem's pipeline alone, effects and all, no broker",
}
_WHOLE = {"relay_events_per_s": "Tandem, outbox to broker", "effects_per_s": "Tandem, draining"}
MODE_HEADS = ["mode", "stays in order", "consumers", "messages/s", "in s", "lowest to highest", "limiter"]
SHARE = HIGH_SHARE - LOW_SHARE
"""The part of a layer's messages over which its rate is taken."""


def heads(summary: Summary) -> list[str]:
    """The heads of the table of layers."""
    return ["messages/s", *(f"{TITLES[broker]}{what}" for broker in summary.brokers for what in ("", " limiter"))]


def rows(summary: Summary) -> list[list[str]]:
    """A row for each layer, and for the whole beside them; empty where no layer was run."""
    sides = list(summary.brokers.items())
    if not any(one.layers for _, one in sides):
        return []
    found = [[title, *_flat(_layer(summary, one, layer) for _, one in sides)] for layer, title in _LAYERS.items()]
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
            _cell(_seconds(summary, each)),
            " to ".join(_cell(value) for value in each.range),
            each.limiter,
        ]
        for broker, each in found
    ]


_ORDERS = {"by key": "events of a key", "whole stream": "the whole stream", "none": "nothing"}


def caveat(summary: Summary) -> str:
    """Says which rates are not to be believed, and where the whole is faster than a part; may be empty."""
    return " ".join(sentence for sentence in (_too_short(summary), _surpassed(summary)) if sentence)


def _surpassed(summary: Summary) -> str:
    """Says on which sides the whole, the adapter in it, is faster than the client library."""
    wholes = {"publish": "relay_events_per_s", "consume": "effects_per_s"}
    named = [
        TITLES[broker]
        for broker, one in summary.brokers.items()
        if any(
            each.per_s is not None and each.per_s < (getattr(one, wholes[each.layer]) or 0.0)
            for each in one.layers
            if each.as_tandem and each.layer in wholes
        )
    ]
    if not named:
        return ""
    return (
        f"On {' and on '.join(named)} Tandem is faster than the client library alone: its adapter goes below it, "
        "a window of events at once."
    )


def _too_short(summary: Summary) -> str:
    """Says which rates were taken over too short a time to be believed; empty where none was."""
    shortest = [
        seconds for one in summary.brokers.values() for each in one.layers
        if (seconds := _seconds(summary, each)) is not None and seconds < SHORT_S
    ]  # fmt: skip
    if not shortest:
        return ""
    return (
        f"Rates are taken over {SHARE:.0%} of the messages. Where those came in less than {SHORT_S:g} s (here in "
        f"as little as {number(min(shortest))} s), a rate is only an order of magnitude, and its limiter that of "
        "starting: ask for more layers.events."
    )


def _seconds(summary: Summary, each: LayerFigures) -> float | None:
    """Over how long a layer's rate was taken."""
    messages = each.messages or (summary.workload.get("layers") or {}).get("events")
    return SHARE * messages / each.per_s if messages and each.per_s else None


def _layer(summary: Summary, one: BrokerFigures, layer: str) -> tuple[str, str]:
    found: LayerFigures | None = next((e for e in one.layers if e.layer == layer and e.as_tandem), None)
    if found is None:
        return "none", "none"
    seconds = _seconds(summary, found)
    short = f" in {number(seconds)} s" if seconds is not None and seconds < SHORT_S else ""
    return _cell(found.per_s) + short, found.limiter


def _whole(summary: Summary, name: str, broker: str, one: BrokerFigures) -> tuple[str, str]:
    row = summary.comparison.get(name)
    limiter = {str(each): said for each, said in row.limiters.items()}.get(broker) if row else None
    return _cell(getattr(one, name)), limiter or "not known"


def _flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [cell for pair in pairs for cell in pair]


def _cell(value: float | None) -> str:
    return "none" if value is None else number(value)
