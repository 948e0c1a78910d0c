"""Dead letters: which state follows on which."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dead_letter import domain, events
from services.dead_letter.domain import (
    Cause,
    IllegalStateChangeError,
    Letter,
    LetterKind,
    Policy,
    State,
)
from services.dead_letter.handlers import policy_of
from shared.broker.base import Delivery, Subscription
from shared.dead_letter import headers as dead_letter
from shared.settings import Settings

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=9)
POLICY = Policy(
    attempts_max=3, backoff_initial_s=100, backoff_max_s=300, answer_timeout_s=60, draw=lambda: 1.0
)  # fmt: skip
ID = UUID("0198c0de-0000-7000-8000-000000000001")
FAILED = Cause(
    kind=LetterKind.FAILED, error_type="KeyError", error_message="'x'", error_stack="", fingerprint="f",
    attempts=1, due_at=None, delays=0,
)  # fmt: skip
DELAYED = replace(FAILED, kind=LetterKind.DELAYED, due_at=NOW + timedelta(seconds=7))


def letter(cause: Cause = FAILED, *, redrive: int = 0, whole: bool = True) -> Letter:
    return domain.receive(ID, cause, redrive=redrive, whole=whole, now=NOW, policy=POLICY)


def test_a_failed_letter_waits_longer_after_every_redrive_and_is_parked_in_the_end() -> None:
    waiting, waits = letter(), []
    while waiting.state is State.PENDING:
        assert waiting.due_at is not None
        waits.append((waiting.due_at - NOW).total_seconds())
        redriven = domain.redrive(waiting, NOW, POLICY)
        assert (redriven.state, redriven.redrives) == (State.REDRIVEN, waiting.redrives + 1)
        waiting = domain.fail_again(redriven, FAILED, redriven.redrives, NOW, POLICY)
    assert waits == [100, 200, 300]
    assert (waiting.state, waiting.redrives, waiting.due_at) == (State.PARKED, 3, None)
    assert waiting.cause.attempts == 4


def test_a_new_letter_holds_what_came_and_when() -> None:
    assert letter(redrive=2) == Letter(
        id=ID, state=State.PENDING, cause=FAILED, whole=True, redrives=2, tries=0, first_seen_at=NOW,
        last_seen_at=NOW, due_at=NOW + timedelta(seconds=100), asked=False, reason=None,
    )  # fmt: skip


def test_a_letter_takes_the_number_of_a_redrive_that_its_row_does_not_know_of() -> None:
    """It was given back, and the transaction that would have said so was rolled back."""
    again = domain.fail_again(letter(), FAILED, 1, LATER, POLICY)
    assert (again.redrives, again.first_seen_at, again.last_seen_at) == (1, NOW, LATER)
    assert again.due_at == LATER + timedelta(seconds=100)


def test_a_recorded_effect_closes_a_letter_whatever_else_was_meant_for_it() -> None:
    asked = domain.ask(letter(redrive=2))
    for number, known in ((1, 2), (3, 3)):
        resolved = domain.resolve(asked, number, LATER)
        assert resolved == replace(
            asked, state=State.RESOLVED, redrives=known, due_at=None, asked=False, last_seen_at=LATER
        )


def test_the_wait_for_an_answer_stops_growing() -> None:
    waits = [
        (domain.redrive(replace(letter(DELAYED), tries=tries), NOW, POLICY).due_at or NOW) - NOW
        for tries in (20, 21, 1_000)
    ]
    assert waits == [timedelta(seconds=60 * 2**20)] * 3


def test_what_cannot_be_given_back_now_is_looked_at_again_later_and_what_somebody_asked_for_at_once() -> None:
    waiting = letter()
    assert domain.hold(waiting, NOW, 5) == replace(waiting, due_at=NOW + timedelta(seconds=5))
    asked = domain.ask(waiting)
    assert domain.hold(asked, NOW, 5) == asked


def test_a_discarded_letter_says_why_and_waits_for_nothing() -> None:
    asked = domain.ask(letter())
    assert domain.discard(asked, "a test order", LATER) == replace(
        asked, state=State.DISCARDED, due_at=None, asked=False, reason="a test order", last_seen_at=LATER
    )


def test_a_parked_letter_says_why_until_it_moves_again() -> None:
    reasons = {
        "it was taken up as often as it may be, and never finished": letter(
            replace(FAILED, error_type="AttemptsExhaustedError")
        ),
        "the message was larger than a dead letter can be, and was cut": letter(whole=False),
        "it failed again after 3 redrives": domain.fail_again(
            replace(letter(redrive=3), state=State.REDRIVEN, tries=3), FAILED, 3, NOW, POLICY
        ),
        "its subscriber has no queue": domain.fail_to_route(replace(letter(), tries=2), NOW, POLICY),
        "somebody said so": domain.park(domain.ask(letter()), "somebody said so"),
    }
    for reason, parked in reasons.items():
        assert (parked.state, parked.reason, parked.asked, parked.due_at) == (State.PARKED, reason, False, None)
        redriven = domain.redrive(parked, NOW, POLICY)
        assert redriven.reason is None
        told = replace(parked, whole=True, tries=0)
        assert domain.fail_again(replace(told, state=State.REDRIVEN), FAILED, 9, NOW, POLICY).reason is None
        unwanted = domain.fail_to_route(domain.ask(told), NOW, POLICY)
        assert (unwanted.state, unwanted.reason) == (State.PENDING, None)


def test_what_failed_together_comes_back_in_the_second_half_of_the_wait_each_at_its_own_time() -> None:
    drawn = iter((0.0, 0.25, 0.5, 1.0))
    policy = replace(POLICY, draw=lambda: next(drawn))
    assert [policy.backoff_s(0) for _ in range(4)] == [50, 62.5, 75, 100]
    by_chance = policy_of(
        Settings(
            broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
            redrive_backoff_initial_s=100, redrive_backoff_max_s=300,
        )
    )  # fmt: skip
    waits = {by_chance.backoff_s(9) for _ in range(50)}
    assert len(waits) > 1
    assert 150 <= min(waits) <= max(waits) <= 300


def test_a_delayed_letter_is_due_when_it_says_and_uses_up_no_try() -> None:
    waiting = letter(DELAYED)
    for _ in range(10):
        assert waiting.due_at == DELAYED.due_at
        redriven = domain.redrive(waiting, NOW, POLICY)
        waiting = domain.fail_again(redriven, DELAYED, redriven.redrives, NOW, POLICY)
    assert (waiting.tries, waiting.redrives, waiting.state) == (0, 10, State.PENDING)


def test_a_delay_begins_when_the_letter_comes_whatever_the_clock_of_its_sender_says() -> None:
    for wrong in (timedelta(hours=-1), timedelta(hours=1)):
        told = replace(DELAYED, due_at=NOW + wrong, delay_s=7.5)
        assert letter(told).due_at == NOW + timedelta(seconds=7.5)


@pytest.mark.parametrize(
    ("text", "delay_s"),
    [
        ("7.5", 7.5),
        ("0", 0.0),
        ("", None),
        ("-1", None),
        ("1e9", None),
        ("nan", None),
        ("9" * 10, None),
        ("٣", None),
    ],
)
def test_a_delay_that_is_no_number_of_seconds_is_none(text: str, delay_s: float | None) -> None:
    subscription = Subscription(channel="order", subscriber="mail", types=frozenset())
    headers = {dead_letter.KIND: "delayed", dead_letter.DELAY_S: text, dead_letter.DUE_AT: NOW.isoformat()}
    delivery = Delivery(b"", headers, "order", None, False, "order#1", None)
    cause = events.read(subscription, delivery).cause
    assert cause is not None
    assert (cause.delay_s, cause.due_at) == (delay_s, NOW)


def test_attempts_are_counted_as_far_as_the_database_can() -> None:
    often = replace(FAILED, attempts=2_000_000_000)
    redriven = domain.redrive(letter(often), NOW, POLICY)
    again = domain.fail_again(redriven, often, redriven.redrives, NOW, POLICY)
    assert again.cause.attempts == domain.ATTEMPTS_MAX


def test_a_wait_beyond_the_calendar_ends_with_it() -> None:
    patient = replace(POLICY, answer_timeout_s=1e12, backoff_initial_s=1e12, backoff_max_s=1e12)
    end = datetime.max.replace(tzinfo=UTC)
    failed = domain.receive(ID, FAILED, redrive=0, whole=True, now=NOW, policy=patient)
    assert (failed.due_at, domain.redrive(failed, NOW, patient).due_at) == (end, end)


def test_silence_uses_up_tries_and_the_answer_may_take_longer_each_time() -> None:
    waiting, waits = domain.redrive(letter(DELAYED), NOW, POLICY), []
    while not domain.is_used_up(waiting, POLICY):
        assert waiting.due_at is not None
        waits.append((waiting.due_at - NOW).total_seconds())
        waiting = domain.redrive(waiting, NOW, POLICY)
    assert waits == [60, 120, 240]


def test_what_kills_or_is_not_whole_is_parked_at_once() -> None:
    assert letter(replace(FAILED, error_type="AttemptsExhaustedError")).state is State.PARKED
    cut = letter(DELAYED, whole=False)
    assert cut.state is State.PARKED
    with pytest.raises(IllegalStateChangeError, match=f"{ID} is not whole and cannot be redriven"):
        domain.ask(cut)


@given(st.lists(st.sampled_from(["redrive", "fail", "stale", "receipt", "ask", "park"]), max_size=12))
def test_stale_answers_change_nothing_and_numbers_only_grow(steps: list[str]) -> None:
    now = letter()
    for step in steps:
        before = now
        if step == "redrive" and before.state in (State.PENDING, State.REDRIVEN):
            now = domain.redrive(before, NOW, POLICY)
            assert now.redrives == before.redrives + 1
        elif step == "fail":
            now = domain.fail_again(before, FAILED, before.redrives, NOW, POLICY)
            assert now.state is not State.REDRIVEN
            assert (now == before) == (before.state is not State.REDRIVEN)
        elif step == "stale":
            now = domain.fail_again(before, FAILED, before.redrives - 1, NOW, POLICY)
            assert now == before
        elif step == "receipt":
            now = domain.resolve(before, before.redrives, NOW)
            assert now.state is State.RESOLVED
        elif step == "ask" and before.state in domain.OPEN:
            now = domain.ask(before)
            assert not domain.is_used_up(now, POLICY)
        assert now.redrives >= before.redrives
        if before.state is State.RESOLVED:
            assert now.state is State.RESOLVED


def test_what_somebody_asks_for_begins_anew() -> None:
    parked = replace(letter(), state=State.PARKED, tries=3)
    redriven = domain.redrive(domain.ask(parked), NOW, POLICY)
    assert (redriven.tries, redriven.asked) == (0, False)
    assert domain.fail_again(redriven, FAILED, redriven.redrives, NOW, POLICY).state is State.PENDING


@pytest.mark.parametrize("cause", [FAILED, DELAYED])
def test_a_letter_that_nobody_has_a_queue_for_waits_longer_each_time_and_is_parked_in_the_end(
    cause: Cause,
) -> None:
    unwanted, waits = domain.fail_to_route(domain.ask(replace(letter(cause), tries=2)), NOW, POLICY), []
    while unwanted.state is State.PENDING:
        assert (unwanted.asked, unwanted.redrives) == (False, 0)
        assert unwanted.due_at is not None
        waits.append((unwanted.due_at - NOW).total_seconds())
        assert not domain.is_used_up(unwanted, POLICY)
        unwanted = domain.fail_to_route(unwanted, NOW, POLICY)
    assert waits == [100, 200, 300]
    assert (unwanted.state, unwanted.due_at) == (State.PARKED, None)


@pytest.mark.parametrize("state", [State.REDRIVEN, State.RESOLVED, State.DISCARDED])
def test_only_what_is_pending_or_parked_can_be_redriven_or_discarded_by_hand(state: State) -> None:
    closed = replace(letter(), state=state)
    with pytest.raises(IllegalStateChangeError, match=f"{ID} is {state.value} and cannot be redriven"):
        domain.ask(closed)
    with pytest.raises(IllegalStateChangeError, match=f"{ID} is {state.value} and cannot be discarded"):
        domain.discard(closed, "no", NOW)
