"""Compares what clients were promised with the effects that were recorded. Pure functions.

Each class is proved by a test that plants it (tests/compare/test_checker.py, and on real servers
tests/faults/test_planted.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from experiment.ledger import Entry, Identity, Outcome


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


@dataclass(frozen=True, slots=True)
class State:
    """What the services' tables say besides the effects.

    `versions`: which version every order and every user has, by id; each version was committed with an event.
    `copies`: which version of every user the order service has heard of (None: not asked).
    `failed`: events with an open letter that says that they failed.
    """

    versions: Mapping[str, int] = field(default_factory=dict)
    copies: Mapping[str, int] | None = None
    failed: Collection[Identity] = ()


@dataclass(slots=True)
class Verdict:
    """What the check found, event by event. It is sound when nothing was found but what is always allowed
    (`indeterminate_recovered`)."""

    acknowledged: int = 0
    effects: int = 0
    lost: list[Entry] = field(default_factory=list)
    """Acknowledged, or committed without the client's hearing of it; without effect, and nowhere on the way."""
    stuck: list[Entry] = field(default_factory=list)
    """As lost, but still in the outbox or the queue: without effect in time."""
    dead_lettered: list[Entry] = field(default_factory=list)
    """Among the dead letters, whether the event has no effect, or has one and failed when it came again."""
    stale: list[Entry] = field(default_factory=list)
    """Acknowledged changes of users that have not come to the order service, the other subscriber."""
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
        return self.complete and not self.reordered

    @property
    def complete(self) -> bool:
        """Whether nothing was lost, doubled or left behind. What is delayed or given back may be overtaken by
        later events of its key: where that happens, order is no promise."""
        found = (
            self.lost,
            self.duplicate_effects,
            self.stuck,
            self.dead_lettered,
            self.stale,
            self.unexpected,
        )
        return not any(found)

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
            "stale": len(self.stale),
            "indeterminate_recovered": len(self.indeterminate_recovered),
            "unexpected": len(self.unexpected),
        }


def check(
    entries: Sequence[Entry],
    effects: Iterable[Effect],
    remaining: Remaining = Remaining(),
    state: State = State(),
) -> Verdict:
    """Classify every intended event and every effect. `effects` may be in any order."""
    recorded = sorted(effects, key=lambda effect: effect.position)
    remaining = replace(remaining, in_dead_letters={*remaining.in_dead_letters, *state.failed})
    verdict = Verdict(effects=len(recorded))
    firsts, verdict.duplicate_effects = _split_duplicates(recorded)
    verdict.reordered = _out_of_order(firsts)
    verdict.stale = _stale(entries, state.copies)
    unclaimed = {effect.identity: effect for effect in firsts}
    for entry in entries:
        _account_for(entry, unclaimed, remaining, verdict)
    _recover_unknown(entries, unclaimed, verdict)
    for entry in _unheard(entries, recorded, state.versions):
        _classify(entry, remaining, verdict)
    in_letters = {entry.identity for entry in verdict.dead_lettered}
    verdict.dead_lettered += [
        entry for entry in entries if entry.identity in state.failed and entry.identity not in in_letters
    ]
    verdict.unexpected = list(unclaimed.values())
    return verdict


def since(whole: Verdict, before: Verdict, entries: Sequence[Entry], effects: Iterable[Effect]) -> Verdict:
    """What one verdict over everything found and an earlier one had not, with the counts of `entries` alone.

    So every violation belongs to the phase that was checked first after it, whichever phase's event it hit.
    """

    def fresh_entries(found: list[Entry], known: list[Entry]) -> list[Entry]:
        seen = {_name(entry) for entry in known}
        return [entry for entry in found if _name(entry) not in seen]

    def fresh_effects(found: list[Effect], known: list[Effect]) -> list[Effect]:
        seen = {effect.position for effect in known}
        return [effect for effect in found if effect.position not in seen]

    return Verdict(
        acknowledged=sum(entry.acknowledged_s is not None for entry in entries),
        effects=len(entries) - len(missing(entries, effects)),
        lost=fresh_entries(whole.lost, before.lost),
        stuck=fresh_entries(whole.stuck, before.stuck),
        dead_lettered=fresh_entries(whole.dead_lettered, before.dead_lettered),
        stale=fresh_entries(whole.stale, before.stale),
        duplicate_effects=fresh_effects(whole.duplicate_effects, before.duplicate_effects),
        reordered=fresh_effects(whole.reordered, before.reordered),
        indeterminate_recovered=fresh_entries(whole.indeterminate_recovered, before.indeterminate_recovered),
        unexpected=fresh_effects(whole.unexpected, before.unexpected),
    )


def _name(entry: Entry) -> object:
    return entry.identity or (entry.phase, entry.idempotency_key)


def unannounced(effects: Iterable[Effect], versions: Mapping[str, int]) -> set[tuple[str, int]]:
    """The committed versions, by key, that have no effect (yet)."""
    recorded = {(effect.key, effect.sequence) for effect in effects}
    committed = ((key, number) for key, version in versions.items() for number in range(1, version + 1))
    return {version for version in committed if version not in recorded}


def missing(entries: Iterable[Entry], effects: Iterable[Effect]) -> list[Entry]:
    """Acknowledged events that have no effect (yet)."""
    recorded = {effect.identity for effect in effects}
    return [
        entry
        for entry in entries
        if entry.outcome is Outcome.ACKNOWLEDGED and (entry.identity is None or entry.identity not in recorded)
    ]


def _split_duplicates(recorded: Sequence[Effect]) -> tuple[list[Effect], list[Effect]]:
    """The first effect of every event, and all others.

    An event is the same when its id is, and also when its key and sequence are: published twice under two ids it
    is still one event to the user.
    """
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
        if identity is None or unclaimed.pop(identity, None) is None:
            _classify(entry, remaining, verdict)
    elif (
        entry.outcome is Outcome.INDETERMINATE
        and identity is not None
        and unclaimed.pop(identity, None) is not None
    ):
        verdict.indeterminate_recovered.append(entry)


def _classify(entry: Entry, remaining: Remaining, verdict: Verdict) -> None:
    """Enter an event without effect by where it was found: among the dead letters, on its way, or nowhere."""
    if entry.identity in remaining.in_dead_letters:
        verdict.dead_lettered.append(entry)
    elif entry.identity in remaining.in_outbox or entry.identity in remaining.in_queue:
        verdict.stuck.append(entry)
    else:
        verdict.lost.append(entry)


def _unheard(entries: Sequence[Entry], recorded: Iterable[Effect], versions: Mapping[str, int]) -> list[Entry]:
    """Changes that were committed, have no effect, and of which no client ever heard."""
    holes = unannounced(recorded, versions)
    found: list[Entry] = []
    nameless: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.key is None:
            continue
        if entry.sequence is None and entry.outcome is Outcome.INDETERMINATE:
            nameless[entry.key].append(entry)
        elif entry.sequence is not None and (entry.key, entry.sequence) in holes:
            holes.discard((entry.key, entry.sequence))
            if entry.outcome is not Outcome.ACKNOWLEDGED:  # those are accounted for
                found.append(entry)
    for key, sequence in sorted(holes):
        if nameless[key]:
            entry = nameless[key].pop(0)
            entry.sequence = sequence
        else:
            entry = Entry("", "unknown", 0.0, key=key, sequence=sequence)
        found.append(entry)
    return found


def _stale(entries: Iterable[Entry], copies: Mapping[str, int] | None) -> list[Entry]:
    """The last acknowledged change of each user whose copy in the order service is older."""
    if copies is None:
        return []
    last: dict[str, tuple[int, Entry]] = {}
    for entry in entries:
        if entry.outcome is Outcome.ACKNOWLEDGED and entry.event_type.startswith("user.") and entry.identity:
            _, key, sequence = entry.identity
            if sequence > last.get(key, (0, entry))[0]:
                last[key] = (sequence, entry)
    return [entry for key, (sequence, entry) in last.items() if sequence > copies.get(key, 0)]


def _recover_unknown(entries: Sequence[Entry], unclaimed: dict[Identity, Effect], verdict: Verdict) -> None:
    """Find the effects of changes whose answer never came.

    Such a change has no known sequence: it gets an effect of its key and type that nobody else claims.
    """
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
