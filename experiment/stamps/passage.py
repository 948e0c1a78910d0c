"""What stamps say of a phase besides times: bytes that changed on the way, second deliveries, order of delivery
and of commit. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from experiment.checker import Effect
from experiment.stamping import event_digest
from experiment.stamps.reader import Times


@dataclass(frozen=True, slots=True)
class Passage:
    """How events came through, by count. `duplicate_deliveries` are allowed; what is `unstamped` has its effect
    and lacks a stamp, so that less is known of it."""

    stamped: int = 0
    unstamped: int = 0
    corrupted: int = 0
    """The bytes that the consumer was given are not those that the relay sent."""
    duplicate_deliveries: int = 0
    delivered_out_of_order: int = 0
    """Delivered, the first time, after a later event of the same key."""
    committed_out_of_order: int = 0
    """COMMIT returned later than that of a later event of the same key."""

    @property
    def sound(self) -> bool:
        return not (self.corrupted or self.delivered_out_of_order or self.committed_out_of_order)

    def __add__(self, other: Passage) -> Passage:
        return Passage(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def times_of(effect: Effect, times: Mapping[bytes, Times]) -> Times | None:
    """The stamps of the event of an effect."""
    source, _, event_id = effect.event_id.partition(" ")
    return times.get(event_digest(source, event_id))


def passage_of(effects: Iterable[Effect], times: Mapping[bytes, Times]) -> Passage:
    """What became of the events of a phase: its effects, and the stamps that were written meanwhile."""
    found = [(effect, of_event) for effect in effects if (of_event := times_of(effect, times)) is not None]
    whole = [(effect, of_event) for effect, of_event in found if of_event.complete]
    return Passage(
        stamped=len(whole),
        unstamped=len(found) - len(whole),
        corrupted=sum(_changed(of_event) for of_event in times.values()),
        duplicate_deliveries=sum(max(0, of_event.deliveries - 1) for of_event in times.values()),
        delivered_out_of_order=_inversions(
            (each.received_ns, each.arrival, effect.key, effect.sequence)
            for effect, each in found
            if each.received_ns is not None
        ),
        committed_out_of_order=_inversions(
            # Of one COMMIT, whose time is one, the order is that of the rows.
            (each.durable_ns, effect.position, effect.key, effect.sequence)
            for effect, each in found
            if each.durable_ns is not None
        ),
    )


def _changed(times: Times) -> bool:
    return None not in (times.sent_body, times.received_body) and times.sent_body != times.received_body


def _inversions(rows: Iterable[tuple[int, int, str, int]]) -> int:
    """How many come after a higher sequence of their key, in the order of the first two."""
    highest: dict[str, int] = {}
    late = 0
    for _, _, key, sequence in sorted(rows):
        late += sequence < highest.get(key, 0)
        highest[key] = max(sequence, highest.get(key, 0))
    return late
