"""The checker finds each class of violation when it is planted, and nothing in a run without one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiment.checker import Effect, Remaining, State, Verdict, check, missing
from experiment.ledger import Entry, Outcome

ORDERS = ("a", "b", "c")


def acknowledged(key: str, sequence: int, event_type: str = "order.placed") -> Entry:
    entry = Entry("steady-1", event_type, 100.0, key=key, sequence=sequence)
    entry.outcome, entry.acknowledged_s = Outcome.ACKNOWLEDGED, 100.1
    return entry


def effect_of(entry: Entry, position: int) -> Effect:
    assert entry.key is not None
    assert entry.sequence is not None
    return Effect(position, f"id-{entry.key}-{entry.sequence}", entry.event_type, entry.key, entry.sequence, 100.2)


@pytest.fixture
def entries() -> list[Entry]:
    """Three orders placed, then all paid."""
    return [acknowledged(key, 1) for key in ORDERS] + [acknowledged(key, 2, "order.paid") for key in ORDERS]


@pytest.fixture
def effects(entries: list[Entry]) -> list[Effect]:
    return [effect_of(entry, position) for position, entry in enumerate(entries, start=1)]


def classes(verdict: Verdict) -> dict[str, int]:
    """The classes in which something was found."""
    return {
        name: count
        for name, count in verdict.counts().items()
        if count and name not in {"acknowledged", "effects"}
    }


def test_a_run_without_violation_is_sound(entries: list[Entry], effects: list[Effect]) -> None:
    verdict = check(entries, reversed(effects))
    assert verdict.sound
    assert classes(verdict) == {}
    assert (verdict.acknowledged, verdict.effects) == (6, 6)


def test_an_acknowledged_event_without_effect_is_lost(entries: list[Entry], effects: list[Effect]) -> None:
    verdict = check(entries, effects[:3] + effects[4:])
    assert not verdict.sound
    assert classes(verdict) == {"lost": 1}
    assert verdict.lost == [entries[3]]
    assert missing(entries, effects[:3] + effects[4:]) == [entries[3]]


def test_an_acknowledged_event_of_which_nothing_is_known_is_lost(
    entries: list[Entry], effects: list[Effect]
) -> None:
    nameless = acknowledged("?", 1)
    nameless.key = nameless.sequence = None
    assert classes(check([*entries, nameless], effects)) == {"lost": 1}


@pytest.mark.parametrize(
    ("place", "found"), [("in_outbox", "stuck"), ("in_queue", "stuck"), ("in_dead_letters", "dead_lettered")]
)
def test_an_event_that_is_still_on_its_way_is_not_lost_but_not_sound_either(
    entries: list[Entry], effects: list[Effect], place: str, found: str
) -> None:
    remaining = Remaining(**{place: {entries[5].identity}})  # type: ignore[arg-type]
    verdict = check(entries, effects[:5], remaining)
    assert classes(verdict) == {found: 1}
    assert not verdict.sound


def test_the_same_event_recorded_twice_is_a_duplicate_effect(entries: list[Entry], effects: list[Effect]) -> None:
    verdict = check(entries, [*effects, replace(effects[0], position=7)])
    assert classes(verdict) == {"duplicate_effects": 1}
    assert not verdict.sound


def test_the_same_change_published_under_two_ids_is_a_duplicate_effect(
    entries: list[Entry], effects: list[Effect]
) -> None:
    verdict = check(entries, [*effects, replace(effects[0], position=7, event_id="another")])
    assert classes(verdict) == {"duplicate_effects": 1}


def test_a_duplicate_does_not_hide_a_loss(entries: list[Entry], effects: list[Effect]) -> None:
    doubled = replace(effects[1], position=9, event_id="another")
    assert classes(check(entries, [*effects[1:], doubled])) == {"lost": 1, "duplicate_effects": 1}


def test_a_later_sequence_recorded_before_an_earlier_one_of_its_key_is_reordered(
    entries: list[Entry], effects: list[Effect]
) -> None:
    swapped = [replace(effects[0], position=4), *effects[1:3], replace(effects[3], position=1), *effects[4:]]
    verdict = check(entries, swapped)
    assert classes(verdict) == {"reordered": 1}
    assert not verdict.sound
    assert verdict.complete, "it is no loss"


def test_events_of_different_keys_have_no_order(entries: list[Entry], effects: list[Effect]) -> None:
    shuffled = [
        replace(effect, position=10 - effect.position if effect.sequence == 1 else effect.position + 10)
        for effect in effects
    ]
    assert classes(check(entries, shuffled)) == {}


def test_an_unanswered_request_that_took_effect_is_recovered(entries: list[Entry], effects: list[Effect]) -> None:
    entries[4].outcome = Outcome.INDETERMINATE
    verdict = check(entries, effects)
    assert classes(verdict) == {"indeterminate_recovered": 1}
    assert verdict.sound


def test_an_unanswered_change_is_recognised_by_its_key(entries: list[Entry], effects: list[Effect]) -> None:
    entries[4].outcome, entries[4].sequence = Outcome.INDETERMINATE, None
    verdict = check(entries, effects)
    assert classes(verdict) == {"indeterminate_recovered": 1}
    assert entries[4].sequence == 2


def test_an_unanswered_request_without_effect_is_nothing(entries: list[Entry], effects: list[Effect]) -> None:
    entries[5].outcome = Outcome.INDETERMINATE
    assert classes(check(entries, effects[:5])) == {}


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.NOT_SENT])
def test_an_effect_of_what_was_refused_or_never_sent_is_unexpected(
    entries: list[Entry], effects: list[Effect], outcome: Outcome
) -> None:
    entries[5].outcome = outcome
    verdict = check(entries, effects)
    assert classes(verdict) == {"unexpected": 1}
    assert not verdict.sound


def test_an_effect_of_an_order_that_nobody_placed_is_unexpected(
    entries: list[Entry], effects: list[Effect]
) -> None:
    verdict = check(entries, [*effects, effect_of(acknowledged("ghost", 1), 7)])
    assert classes(verdict) == {"unexpected": 1}


def versions_of(entries: list[Entry]) -> dict[str, int]:
    """As in the owners' tables: the highest version of each key."""
    return {str(entry.key): entry.sequence or 0 for entry in entries}


def test_a_change_that_was_committed_and_not_answered_must_take_effect_too(
    entries: list[Entry], effects: list[Effect]
) -> None:
    entries[5].outcome, entries[5].sequence = Outcome.INDETERMINATE, None
    committed = State(versions=versions_of(entries) | {"c": 2})
    verdict = check(entries, effects[:5], state=committed)
    assert classes(verdict) == {"lost": 1}
    assert verdict.lost == [entries[5]]
    assert not verdict.sound


def test_an_order_that_was_committed_and_not_answered_may_be_on_its_way(
    entries: list[Entry], effects: list[Effect]
) -> None:
    entries[0].outcome = Outcome.INDETERMINATE
    remaining = Remaining(in_outbox={entries[0].identity})  # type: ignore[arg-type]
    verdict = check(entries, effects[1:], remaining, State(versions=versions_of(entries)))
    assert classes(verdict) == {"stuck": 1}


def test_a_committed_change_that_nobody_asked_for_and_that_has_no_effect_is_lost(
    entries: list[Entry], effects: list[Effect]
) -> None:
    assert classes(check(entries, effects, state=State(versions=versions_of(entries) | {"c": 3}))) == {"lost": 1}


def test_an_acknowledged_event_is_not_counted_again_because_its_version_is_committed(
    entries: list[Entry], effects: list[Effect]
) -> None:
    assert classes(check(entries, effects[:5], state=State(versions=versions_of(entries)))) == {"lost": 1}


def test_what_was_committed_and_took_effect_is_no_finding(entries: list[Entry], effects: list[Effect]) -> None:
    assert classes(check(entries, effects, state=State(versions=versions_of(entries)))) == {}


def test_an_event_with_an_effect_and_a_letter_that_it_failed_is_dead_lettered(
    entries: list[Entry], effects: list[Effect]
) -> None:
    """It came again, and only the table's own constraint kept it from a second effect."""
    verdict = check(entries, effects, state=State(failed={entries[2].identity}))  # type: ignore[arg-type]
    assert classes(verdict) == {"dead_lettered": 1}
    assert not verdict.sound


def test_a_letter_of_an_event_without_effect_is_counted_once(entries: list[Entry], effects: list[Effect]) -> None:
    letter = {entries[5].identity}
    verdict = check(entries, effects[:5], Remaining(in_dead_letters=letter), State(failed=letter))  # type: ignore[arg-type]
    assert classes(verdict) == {"dead_lettered": 1}


@pytest.mark.parametrize(("copy", "found"), [(3, {}), (2, {"stale": 1}), (None, {"stale": 1})])
def test_a_user_must_come_to_the_order_service_as_last_acknowledged(
    copy: int | None, found: dict[str, int]
) -> None:
    changes = [acknowledged("u", 1, "user.registered")]
    changes += [acknowledged("u", sequence, "user.profile_updated") for sequence in (2, 3)]
    effects = [effect_of(entry, position) for position, entry in enumerate(changes, start=1)]
    verdict = check(changes, effects, state=State(copies={} if copy is None else {"u": copy}))
    assert classes(verdict) == found
    assert verdict.sound is not bool(found)
