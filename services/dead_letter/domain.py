"""What a dead letter is, when it is given back, and which letters have one cause. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from shared.backoff import backoff_s
from shared.errors import (
    BusinessError,
    SchemaViolationError,
    UndecodableError,
    UnknownEventTypeError,
    UnknownSchemaError,
)

KILLER: Final = "AttemptsExhaustedError"
"""The error of an event that ended its consumer as often as it may."""


ATTEMPTS_MAX: Final = 2**31 - 1
"""As many as the database can hold; of a letter with more it is said that it had so many."""
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


class State(StrEnum):
    """PENDING → REDRIVEN → RESOLVED, PARKED, or PENDING again. People can redrive what is parked, and discard."""

    PENDING = "pending"
    """Given back when it is due, or when somebody says so."""
    REDRIVEN = "redriven"
    """Given back; the answer has not come."""
    RESOLVED = "resolved"
    """Its effect is recorded."""
    PARKED = "parked"
    """Given back only when somebody says so."""
    DISCARDED = "discarded"
    """Somebody said that it need not take effect."""


class LetterKind(StrEnum):
    FAILED = "failed"
    DELAYED = "delayed"


OPEN: Final = frozenset({State.PENDING, State.PARKED})
"""What may be redriven or discarded by hand."""


class LetterNotFoundError(BusinessError):
    """No dead letter has this id."""


class RedriveNotFoundError(BusinessError):
    """No redrive has this id."""


class IllegalStateChangeError(BusinessError):
    """The letter is in a state that does not allow this."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When failed letters are given back by themselves: after `backoff_initial_s`, twice as long each time up to
    `backoff_max_s`, `attempts_max` times. Of each wait the second half is drawn (equal jitter), so that what
    failed together does not come back together. No answer within `answer_timeout_s` (twice as long each time,
    too) counts like a failure. `draw` is uniform in [0, 1)."""

    attempts_max: int
    backoff_initial_s: float
    backoff_max_s: float
    answer_timeout_s: float
    draw: Callable[[], float]

    def backoff_s(self, tries: int) -> float:
        return backoff_s(tries, self.backoff_initial_s, self.backoff_max_s, self.draw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why an event is here, as its subscriber saw it. `fingerprint` is the same for everything of one cause."""

    kind: LetterKind
    error_type: str
    error_message: str
    error_stack: str
    fingerprint: str
    attempts: int
    due_at: datetime | None
    """Only of what is delayed, by the subscriber's clock: of no account beside `delay_s`."""
    delay_s: float | None = None
    """Only of what is delayed, as it comes; None is what an earlier version sends."""
    delays: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """The part of a dead letter that changes; its message never does.

    `redrives` is the number of the last redrive, `tries` how many of those the schedule has used up since it came
    or somebody redrove it, `due_at` when it is looked at next (of a REDRIVEN one: when its answer is overdue).
    `whole`: bytes and headers are all there. `asked`: somebody's redrive has not come to it yet.
    """

    id: UUID
    state: State
    cause: Cause
    whole: bool
    redrives: int = 0
    tries: int = 0
    due_at: datetime | None
    first_seen_at: datetime
    last_seen_at: datetime
    asked: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """A redrive that somebody asked for: of `requested` letters, at `rate_per_s`. Its next letters are due at
    `next_at`; None when it has come to all of them."""

    id: UUID
    rate_per_s: float
    requested: int
    started_at: datetime
    next_at: datetime | None


def receive(letter_id: UUID, cause: Cause, *, redrive: int, whole: bool, now: datetime, policy: Policy) -> Letter:
    """A new letter, as it is when it is first kept."""
    blank = Letter(
        id=letter_id,
        state=State.PENDING,
        cause=cause,
        whole=whole,
        redrives=redrive,
        due_at=now,
        first_seen_at=now,
        last_seen_at=now,
    )
    return _wait(blank, cause, now, policy)


def fail_again(letter: Letter, cause: Cause, redrive: int, now: datetime, policy: Policy) -> Letter:
    """The letter after its subscriber had it once more, and it failed or is delayed again.

    What an earlier redrive says, or one that was answered already, is a repetition and changes nothing.
    """
    seen = replace(letter, last_seen_at=now)
    answered = redrive == letter.redrives and letter.state is not State.REDRIVEN
    if redrive < letter.redrives or answered or letter.state in (State.RESOLVED, State.DISCARDED):
        return seen
    in_all = replace(cause, attempts=min(letter.cause.attempts + cause.attempts, ATTEMPTS_MAX))
    return _wait(replace(seen, redrives=redrive), in_all, now, policy)


def resolve(letter: Letter, redrive: int, now: datetime) -> Letter:
    """The letter after its effect was recorded, whichever redrive did it."""
    return replace(
        letter,
        state=State.RESOLVED,
        redrives=max(redrive, letter.redrives),
        due_at=None,
        asked=False,
        last_seen_at=now,
    )


def redrive(letter: Letter, now: datetime, policy: Policy) -> Letter:
    """The letter after it was given back, because it was due or somebody asked for it, with the next number.

    What somebody asked for begins anew: with all tries, and all delays.
    """
    tries = 0 if letter.asked else letter.tries + (letter.state is State.REDRIVEN or _counts(letter))
    timeout_s = policy.answer_timeout_s * 2.0 ** min(tries, 20)
    return replace(
        letter,
        state=State.REDRIVEN,
        redrives=letter.redrives + 1,
        tries=tries,
        due_at=_after(now, timeout_s),
        asked=False,
        reason=None,
    )


def hold(letter: Letter, now: datetime, wait_s: float) -> Letter:
    """The letter after the broker did not take it, no fault of its own: it is looked at again after `wait_s`."""
    return letter if letter.asked else replace(letter, due_at=_after(now, wait_s))


def fail_to_route(letter: Letter, now: datetime, policy: Policy) -> Letter:
    """The letter after nobody was found who has its subscriber's queue.

    A moment later that will be no different: it waits, and is parked in the end, as if it had failed again,
    whether the schedule or somebody wanted it redriven.
    """
    tries = 0 if letter.asked else letter.tries + 1
    unwanted = replace(letter, state=State.PENDING, tries=tries, asked=False, reason=None)
    if tries >= policy.attempts_max:
        return park(unwanted, "its subscriber has no queue")
    return replace(unwanted, due_at=_after(now, policy.backoff_s(tries)))


def is_used_up(letter: Letter, policy: Policy) -> bool:
    """Whether the letter has been given back so often that the schedule may not do it once more."""
    counted = letter.state is State.REDRIVEN or _counts(letter)
    return not letter.asked and counted and letter.tries >= policy.attempts_max


def park(letter: Letter, reason: str) -> Letter:
    return replace(letter, state=State.PARKED, due_at=None, asked=False, reason=reason)


def ask(letter: Letter) -> Letter:
    """The letter after somebody asked for it to be redriven. Raises `IllegalStateChangeError`."""
    if letter.state not in OPEN:
        raise IllegalStateChangeError(f"dead letter {letter.id} is {letter.state.value} and cannot be redriven")
    if not letter.whole:
        raise IllegalStateChangeError(f"dead letter {letter.id} is not whole and cannot be redriven")
    return replace(letter, asked=True)


def discard(letter: Letter, reason: str, now: datetime) -> Letter:
    """The letter after somebody said that it need not take effect. Raises `IllegalStateChangeError`."""
    if letter.state not in OPEN:
        raise IllegalStateChangeError(f"dead letter {letter.id} is {letter.state.value} and cannot be discarded")
    return replace(letter, state=State.DISCARDED, due_at=None, asked=False, reason=reason, last_seen_at=now)


def _counts(letter: Letter) -> bool:
    # A delayed event is counted, if it is, by the subscriber, which makes it a failed one in the end.
    return letter.cause.kind is LetterKind.FAILED


def _wait(letter: Letter, cause: Cause, now: datetime, policy: Policy) -> Letter:
    told = replace(letter, state=State.PENDING, cause=cause, reason=None)
    if not letter.whole:
        return park(told, "the message was larger than a dead letter can be, and was cut")
    if cause.kind is LetterKind.DELAYED:
        due_at = cause.due_at if cause.delay_s is None else _after(now, cause.delay_s)
        return replace(told, due_at=due_at or now)
    if cause.error_type == KILLER:
        return park(told, "it was taken up as often as it may be, and never finished")
    if letter.tries >= policy.attempts_max:
        return park(told, f"it failed again after {letter.tries} redrives")
    return replace(told, due_at=_after(now, policy.backoff_s(letter.tries)))


def _after(now: datetime, wait_s: float) -> datetime:
    """The time `wait_s` later; the end of the calendar where that is later still."""
    if wait_s >= (_END_OF_TIME - now).total_seconds():
        return _END_OF_TIME
    return now + timedelta(seconds=wait_s)


# -- causes

_FINGERPRINTS: Final = UUID("0d6c0d52-5f0e-4e2f-8f0b-0c1a0b6f7d21")
_QUOTED_OR_UUID: Final = r"""
      '[^']*' | "[^"]*" | `[^`]*`
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}
"""
_HEXADECIMAL_OR_NUMBER: Final = r"""
      0x[0-9a-f]+ | \b(?=[0-9a-f]*[0-9])[0-9a-f]{6,}\b
    | [-+]?\d+(?:[.,:]\d+)*                                                # also times
"""
_AS_WRITTEN: Final = re.VERBOSE | re.IGNORECASE
_BEFORE_ADDRESSES: Final = re.compile(_QUOTED_OR_UUID, _AS_WRITTEN)
_VARYING: Final = re.compile(rf"{_QUOTED_OR_UUID} | {_HEXADECIMAL_OR_NUMBER} | (?P<blanks>\s+)", _AS_WRITTEN)
_REST_OF_WORD: Final = re.compile(r"\S*")
_FRAME: Final = re.compile(r'File "([^"\n]*)\.py", line \d+, in (\S+)')
_OURS: Final = re.compile(r"(?:services|shared|tests)/.")
_SAYS_ALL: Final = frozenset(
    error.__name__ for error in (UndecodableError, UnknownEventTypeError, UnknownSchemaError, SchemaViolationError)
)
"""What is found out about an event before it has a handler: where in our code is nobody's concern."""


def fingerprint(queue: str, error_type: str, message: str, stack: str) -> str:
    """32 hexadecimal digits that are equal for failures of one subscriber with one cause: the error's type, its
    message without what differs from event to event, and the innermost function of ours that it came from, by its
    name alone: functions move to other files while letters are kept."""
    functions = (
        [] if error_type in _SAYS_ALL else [name for path, name in _FRAME.findall(stack) if _OURS.search(path)]
    )
    function = functions[-1].lstrip("_") if functions else ""
    return uuid5(_FINGERPRINTS, "\n".join((queue, error_type, normalised(message), function))).hex


def normalised(message: str) -> str:
    """The message with a `#` for every id, number, address and quoted value.

    Takes time in proportion to the message, whatever is in it. So an address (or an offset: a word with an `@` in
    its midst) is not left to the pattern: at each character it would look for an `@` in all the rest of the word.
    """
    parts: list[str] = []
    position = word_end = last_at = 0
    while position < len(message):
        if position >= word_end:
            word_end = _REST_OF_WORD.match(message, position).end()  # type: ignore[union-attr]  # it may match nothing
            last_at = message.rfind("@", position, max(position, word_end - 1))
        if position < last_at and not _BEFORE_ADDRESSES.match(message, position):
            parts.append("#")
            position = word_end
            continue
        found = _VARYING.search(message, position)
        if found is None:
            parts.append(message[position:])
            break
        parts += message[position : found.start()], " " if found["blanks"] else "#"
        position = found.end()
    return " ".join("".join(parts).split())
