"""The checker: compares what clients were promised with the effects that were recorded. Pure functions.

Each class is proved by a test that plants it (tests/compare/test_checker.py, and on real servers
tests/compare/test_planted_faults.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from compare.ledger import Entry, Identity, Outcome


@dataclass(frozen=True, slots=True)
class Effect:
    """One recorded effect.

    `position` is the order in which effects were recorded, `event_id` the event's source and id, `committed_s` the
    time, in seconds since the epoch, at which the effect's transaction was committed.
    """

    position: int
    event_id: str
    event_type: str
    key: str
    sequence: int
    committed_s: float

    @property
    def identity(self) -> Identity:
        return (self.event_type, self.key, self.sequence)


@dataclass(frozen=True, slots=True)
class Remaining:
    """Events without effect that were found on the way: in the outbox, in the broker, among the dead letters."""

    in_outbox: Collection[Identity] = ()
    in_queue: Collection[Identity] = ()
    in_dead_letters: Collection[Identity] = ()


@dataclass(slots=True)
class Verdict:
    """What was found, event by event. `sound`: nothing was lost, doubled, stuck, dead-lettered or made up."""

    acknowledged: int = 0
    effects: int = 0
    lost: list[Entry] = field(default_factory=list)
    """Acknowledged, without effect, and nowhere on the way."""
    stuck: list[Entry] = field(default_factory=list)
    """Acknowledged, without effect in time, still in the outbox or the queue."""
    dead_lettered: list[Entry] = field(default_factory=list)
    duplicate_effects: list[Effect] = field(default_factory=list)
    """Every effect of an event after its first."""
    reordered: list[Effect] = field(default_factory=list)
    """Effects recorded after one of the same key with a higher sequence."""
    indeterminate_recovered: list[Entry] = field(default_factory=list)
    """The client never heard of success, and yet there is an effect: allowed, and counted."""
    unexpected: list[Effect] = field(default_factory=list)
    """Effects of events that nobody intended, or that were refused."""

    @property
    def sound(self) -> bool:
        return not (self.lost or self.duplicate_effects or self.stuck or self.dead_lettered or self.unexpected)

    def counts(self) -> dict[str, int]:
        """Every class by its name."""
        return {
            "acknowledged": self.acknowledged,
            "effects": self.effects,
            "lost": len(self.lost),
            "duplicate_effects": len(self.duplicate_effects),
            "reordered": len(self.reordered),
            "stuck": len(self.stuck),
            "dead_lettered": len(self.dead_lettered),
            "indeterminate_recovered": len(self.indeterminate_recovered),
            "unexpected": len(self.unexpected),
        }


def check(entries: Sequence[Entry], effects: Iterable[Effect], remaining: Remaining = Remaining()) -> Verdict:
    """Classify every intended event and every effect. `effects` may be in any order."""
    recorded = sorted(effects, key=lambda effect: effect.position)
    verdict = Verdict(effects=len(recorded))
    firsts, verdict.duplicate_effects = _split_duplicates(recorded)
    verdict.reordered = _out_of_order(firsts)
    unclaimed = {effect.identity: effect for effect in firsts}
    for entry in entries:
        _account_for(entry, unclaimed, remaining, verdict)
    _recover_unknown(entries, unclaimed, verdict)
    verdict.unexpected = list(unclaimed.values())
    return verdict


def missing(entries: Iterable[Entry], effects: Iterable[Effect]) -> list[Entry]:
    """Acknowledged events that have no effect (yet)."""
    recorded = {effect.identity for effect in effects}
    return [
        entry
        for entry in entries
        if entry.outcome is Outcome.ACKNOWLEDGED and (entry.identity is None or entry.identity not in recorded)
    ]


def _split_duplicates(recorded: Sequence[Effect]) -> tuple[list[Effect], list[Effect]]:
    """An event is the same when its id is, and also when its key and sequence are: published twice under two
    ids it is still one event to the user."""
    firsts: list[Effect] = []
    duplicates: list[Effect] = []
    seen: set[Identity | str] = set()
    for effect in recorded:
        known = effect.identity in seen or effect.event_id in seen
        (duplicates if known else firsts).append(effect)
        seen.update((effect.identity, effect.event_id))
    return firsts, duplicates


def _out_of_order(recorded: Sequence[Effect]) -> list[Effect]:
    highest: dict[str, int] = {}
    late = []
    for effect in recorded:
        if effect.sequence < highest.get(effect.key, 0):
            late.append(effect)
        highest[effect.key] = max(effect.sequence, highest.get(effect.key, 0))
    return late


def _account_for(entry: Entry, unclaimed: dict[Identity, Effect], remaining: Remaining, verdict: Verdict) -> None:
    identity = entry.identity
    if entry.outcome is Outcome.ACKNOWLEDGED:
        verdict.acknowledged += 1
        if identity is not None and unclaimed.pop(identity, None) is not None:
            return
        if identity in remaining.in_dead_letters:
            verdict.dead_lettered.append(entry)
        elif identity in remaining.in_outbox or identity in remaining.in_queue:
            verdict.stuck.append(entry)
        else:
            verdict.lost.append(entry)
    elif (
        entry.outcome is Outcome.INDETERMINATE
        and identity is not None
        and unclaimed.pop(identity, None) is not None
    ):
        verdict.indeterminate_recovered.append(entry)


def _recover_unknown(entries: Sequence[Entry], unclaimed: dict[Identity, Effect], verdict: Verdict) -> None:
    """A change whose answer never came has no known sequence: give it an effect of its key and type that nobody
    else claims."""
    waiting: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.outcome is Outcome.INDETERMINATE and entry.key is not None and entry.sequence is None:
            waiting[entry.event_type, entry.key].append(entry)
    for identity in list(unclaimed):
        candidates = waiting.get(identity[:2])
        if candidates:
            entry = candidates.pop(0)
            entry.sequence = identity[2]
            del unclaimed[identity]
            verdict.indeterminate_recovered.append(entry)
