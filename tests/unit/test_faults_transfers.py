"""What is damaged in transfers is found, each kind as its own class; what is sound is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from faults.transfers.checker import Asked, Told, TransferFound, check
from faults.wallet.audit import places_of
from services.wallet.store.audit import RULES, Finding, report

ADA, BOB = UUID(int=1), UUID(int=2)
DONE, BACK, UNHEARD = UUID(int=11), UUID(int=12), UUID(int=13)
WISH = Asked(ADA, BOB, 100)


def told() -> Told:
    """One that was done, one that was taken back, and one of which no client heard."""
    return Told(acknowledged={DONE: WISH, BACK: WISH}, taken_back={BACK}, taking_back={BACK}, unanswered=1)


def found(*, without: Sequence[UUID] = (), **statuses: str) -> list[TransferFound]:
    by_name = {"done": DONE, "back": BACK, "unheard": UNHEARD}
    states = {"done": "completed", "back": "cancelled", "unheard": "completed", **statuses}
    return [
        TransferFound(by_name[name], WISH, status)
        for name, status in states.items()
        if by_name[name] not in without
    ]


def damage(told: Told, rows: Sequence[TransferFound], broken: Sequence[str] = ()) -> dict[str, list[str]]:
    return {name: ones for name, ones in check(told, rows, broken).damage().items() if ones}


def test_what_is_sound_is_found_sound() -> None:
    findings = check(told(), found())
    assert findings.sound
    assert (findings.acknowledged, findings.transfers, findings.completed, findings.taken_back) == (2, 3, 2, 1)


def test_a_cancellation_that_nobody_answered_may_have_come_too_late() -> None:
    unheard = replace(told(), taken_back=set())
    assert check(unheard, found()).sound
    assert check(unheard, found(back="completed")).sound


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("lost", found(without=[DONE])),
        ("unended", found(done="pending")),
        ("wrong", found(done="failed")),
        ("wrong", found(done="cancelled")),
        ("wrong", found(back="completed")),
        ("wrong", [TransferFound(DONE, replace(WISH, amount=99), "completed"), *found(without=[DONE])]),
        ("wrong", [TransferFound(DONE, Asked(BOB, ADA, 100), "completed"), *found(without=[DONE])]),
        ("doubled", [*found(), TransferFound(UUID(int=14), WISH, "completed")]),
    ],
)
def test_each_damage_is_its_own_class(kind: str, rows: list[TransferFound]) -> None:
    assert list(damage(told(), rows)) == [kind]


def test_two_transfers_for_one_key_are_found() -> None:
    assert damage(replace(told(), doubled=["another"]), found()) == {"doubled": ["another"]}


def test_what_the_audit_finds_is_damage() -> None:
    assert damage(told(), found(), ["nothing is negative: it is"]) == {"broken": ["nothing is negative: it is"]}


def test_the_audits_own_words_are_understood() -> None:
    first, *_, last = RULES
    findings = [Finding(first, "one: 1 KRW"), Finding(first, "two: 2 KRW"), Finding(last, "three")]
    expected = [f"{first}: one: 1 KRW", f"{first}: two: 2 KRW", f"{last}: three"]
    assert places_of("\n".join(report(findings))) == expected
    assert places_of("\n".join(report([]))) == []
    assert places_of(f"BROKEN  {first}") == [first]


def test_what_was_found_before_is_not_found_again() -> None:
    before = check(told(), found(without=[DONE]))
    assert before.lost
    now = check(told(), found(without=[DONE], back="completed")).since(before)
    assert (now.lost, now.wrong, now.acknowledged) == ([], [str(BACK)], 0)
