"""The use cases of the dead-letter service: keep what comes, give back what is due or asked for, show it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from services.dead_letter import domain
from services.dead_letter.domain import Letter, LetterNotFoundError, Policy, Redrive, RedriveNotFoundError, State
from services.dead_letter.events import Received, sent_from_json
from services.dead_letter.store import alerts, listing, rows
from services.dead_letter.store import letters as letter_rows
from services.dead_letter.store import redrives as redrive_rows
from services.dead_letter.store.listing import Filter
from services.dead_letter.store.rows import Listed, Stored
from shared.broker import Broker, Delivery, Subscription
from shared.dead_letter import headers as dead_letter
from shared.errors import UnavailableError, UnroutableError
from shared.publishing import UnitOfWork
from shared.settings import Settings
from shared.telemetry import Sample

_log = structlog.get_logger(__name__)

LETTERS_PER_REDRIVE_MAX = 50_000
GROUPS_MAX = 500
PORTION_MAX = 100
"""Letters that are given back in one transaction, unless they are large: see `store.letters.PORTION_BYTES_MAX`."""
_FORGOTTEN_MAX = 1_000
_PACE_S = 0.25
"""A redrive's letters go out in portions of what is due in so long."""
_LAG_MAX_S = 1.0
"""How much a redrive may catch up at once."""
_AWAY_S = 15.0
"""For how long a letter rests that the broker did not take."""

Publish = Callable[[Subscription, Delivery, dict[str, str]], Awaitable[None]]
"""As `Broker.publish_retry`."""
Alarm = dict[str, str]
"""What an alert says."""


@dataclass(frozen=True, slots=True)
class Portion:
    """A portion that was given back: `more` may wait behind it, `alarms` are to be raised once it is committed."""

    more: bool
    alarms: list[Alarm]


def policy_of(settings: Settings) -> Policy:
    return Policy(
        attempts_max=settings.redrive_attempts_max,
        backoff_initial_s=settings.redrive_backoff_initial_s,
        backoff_max_s=settings.redrive_backoff_max_s,
        answer_timeout_s=settings.redrive_answer_timeout_s,
        draw=random.random,
    )


# -- what comes out of the dead-letter places


async def receive(
    uow: UnitOfWork, received: Sequence[Received], policy: Policy, alert_interval_s: float
) -> list[Alarm]:
    """Keep new letters, note what became of those that were given back, and return the alerts to raise.

    There is one alert for each cause that had been quiet. A message that is repeated has no second effect.
    """
    now = await letter_rows.read_clock(uow.connection)
    first: dict[UUID, Received] = {}
    for one in received:
        if one.cause is not None:
            first.setdefault(one.letter_id, one)
    fresh = [rows.new_row(one, _new(one, now, policy)) for one in first.values()]
    new = await letter_rows.insert_new(uow.connection, fresh)
    letters = await letter_rows.lock_letters(uow.connection, [one.letter_id for one in received])
    alarms: dict[str, Alarm] = {}
    changed: dict[UUID, Letter] = {}
    for one in received:
        before = letters.get(one.letter_id)
        if before is None:
            _log.warning("dead_letter.receipt_without_letter", letter=str(one.letter_id))
            continue
        made_it = one.letter_id in new and first[one.letter_id] is one
        letter = before if made_it else _again(before, one, now, policy)
        if not made_it:
            letters[letter.id] = changed[letter.id] = letter
        if _is_alarming(letter) and (made_it or letter.state is not before.state):
            alarms[letter.cause.fingerprint] = _alarm(letter, one.subscription.queue)
    for letter_id in sorted(changed):
        uow.tell(letter_rows.CHANGE_LETTER, rows.changed(changed[letter_id]))
    return await _raised(uow, alarms, now, alert_interval_s)


def _new(one: Received, now: datetime, policy: Policy) -> Letter:
    assert one.cause is not None
    return domain.receive(one.letter_id, one.cause, redrive=one.redrive, whole=one.whole, now=now, policy=policy)


def _again(letter: Letter, one: Received, now: datetime, policy: Policy) -> Letter:
    if one.cause is None:
        return domain.resolve(letter, one.redrive, now)
    return domain.fail_again(letter, one.cause, one.redrive, now, policy)


async def _raised(
    uow: UnitOfWork, alarms: Mapping[str, Alarm], now: datetime, alert_interval_s: float
) -> list[Alarm]:
    """The alarms, by fingerprint, of those causes that had been quiet for so long."""
    quiet_since = now - timedelta(seconds=alert_interval_s)
    raised = await alerts.raise_alerts(uow.connection, list(alarms), now, quiet_since)
    return [alarms[fingerprint] for fingerprint in sorted(raised)]


def _alarm(letter: Letter, queue: str) -> Alarm:
    return {
        "queue": queue,
        "fingerprint": letter.cause.fingerprint,
        "error_type": letter.cause.error_type,
        "error": letter.cause.error_message[:500],
        "state": letter.state.value,
        "letter": str(letter.id),
        **({"reason": letter.reason} if letter.reason is not None else {}),
    }


def _is_alarming(letter: Letter) -> bool:
    failed = letter.cause.kind is domain.LetterKind.FAILED
    return letter.state is State.PARKED or (failed and letter.state is State.PENDING)


# -- giving back


def way_back(broker: Broker, queues: Collection[str]) -> Publish:
    """`publish_retry`, which on every broker refuses what nobody has a queue for.

    A broker that cannot tell is not asked: there, those subscribers have a queue whose dead letters are kept. Any
    other's letter would wait for ever for somebody to be there.
    """

    async def publish(subscription: Subscription, delivery: Delivery, headers: dict[str, str]) -> None:
        if not broker.capabilities.unroutable_detected and subscription.queue not in queues:
            raise UnroutableError(f"nobody keeps the dead letters of {subscription.queue} any more")
        await broker.publish_retry(subscription, delivery, headers)

    return publish


async def give_back_due(
    uow: UnitOfWork,
    publish: Publish,
    policy: Policy,
    alert_interval_s: float,
    *,
    delayed_only: bool,
) -> Portion:
    """Give back a portion of what is due.

    `delayed_only`: delayed events and overdue answers, not the failed ones, whose turn comes more rarely.
    """
    now = await letter_rows.read_clock(uow.connection)
    due = await letter_rows.take_due(uow.connection, now, delayed_only=delayed_only, batch_max=PORTION_MAX)
    _, alarms = await _give_back(uow, publish, due, now, policy)
    return Portion(bool(due), await _raised(uow, alarms, now, alert_interval_s))


async def give_back_asked(uow: UnitOfWork, publish: Publish, policy: Policy, alert_interval_s: float) -> Portion:
    """Give back the next portion of a redrive that somebody asked for, if one is due.

    The pace is kept in the database, so that it holds for all replicas together.
    """
    now = await letter_rows.read_clock(uow.connection)
    asked_for = await redrive_rows.take_redrive(uow.connection, now)
    if asked_for is None or asked_for.next_at is None:
        return Portion(more=False, alarms=[])
    portion = max(1, min(PORTION_MAX, math.ceil(asked_for.rate_per_s * _PACE_S)))
    taken = await redrive_rows.take_asked(uow.connection, asked_for.id, portion)
    letters, alarms = await _give_back(uow, publish, taken, now, policy)
    await uow.flush()
    then = max(asked_for.next_at, now - timedelta(seconds=_LAG_MAX_S))
    then_at: datetime | None = then + timedelta(seconds=max(1, len(taken)) / asked_for.rate_per_s)
    if any(letter.asked for letter in letters):  # the broker did not take them
        then_at = now + timedelta(seconds=_AWAY_S)
    elif len(taken) < portion:
        waiting, _ = await redrive_rows.progress_of(uow.connection, asked_for.id)
        then_at = then_at if waiting else None
    uow.tell(redrive_rows.NEXT_OF_REDRIVE, {"of_redrive": asked_for.id, "then_at": then_at})
    return Portion(more=True, alarms=await _raised(uow, alarms, now, alert_interval_s))


async def _give_back(
    uow: UnitOfWork, publish: Publish, taken: Sequence[Stored], now: datetime, policy: Policy
) -> tuple[list[Letter], dict[str, Alarm]]:
    """Publish the letters to their subscribers, and note it.

    Returns what they are now, and the alarms about those that are parked, by their cause.
    """
    letters = await asyncio.gather(*(_offered(publish, stored, now, policy) for stored in taken))
    alarms: dict[str, Alarm] = {}
    for stored, letter in zip(taken, letters, strict=True):
        uow.tell(letter_rows.CHANGE_LETTER, rows.changed(letter))
        if letter.state is State.PARKED:
            alarm = alarms[letter.cause.fingerprint] = _alarm(letter, f"{stored.subscriber}.{stored.channel}")
            _log.warning("dead_letter.parked", **alarm)
    return letters, alarms


async def _offered(publish: Publish, stored: Stored, now: datetime, policy: Policy) -> Letter:
    """The letter after it was published to its subscriber, or could not be."""
    letter = stored.letter
    if domain.is_used_up(letter, policy):
        return domain.park(letter, f"no answer to {letter.redrives} redrives")
    try:
        await _send(publish, stored, now)
    except UnavailableError as error:
        _log.warning("dead_letter.not_given_back", letter=str(letter.id), error=str(error))
        if isinstance(error, UnroutableError):
            return domain.fail_to_route(letter, now, policy)
        return domain.hold(letter, now, _AWAY_S)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is in the reason, and no other letter's business
        return domain.park(letter, f"it could not be given back: {error}"[:500])
    return domain.redrive(letter, now, policy)


async def _send(publish: Publish, stored: Stored, now: datetime) -> None:
    letter = stored.letter
    subscription = Subscription(channel=stored.channel, subscriber=stored.subscriber, types=frozenset())
    came_with_it = {name: text for name, text in stored.headers.items() if not dead_letter.is_own(name)}
    message = Delivery(
        stored.body, came_with_it, stored.channel, stored.key, False, "", stored.sent, sent_from_json
    )
    added = {dead_letter.LETTER_ID: str(letter.id), dead_letter.REDRIVE: str(letter.redrives + 1)}
    if not letter.asked:  # what somebody asks for begins anew
        added[dead_letter.DELAYS] = str(letter.cause.delays)
        added[dead_letter.AGE_S] = f"{max(0.0, (now - letter.first_seen_at).total_seconds()):.3f}"
        added[dead_letter.FIRST_FAILED_AT] = letter.first_seen_at.isoformat()
    await publish(subscription, message, added)


# -- what people ask for


async def redrive_letter(uow: UnitOfWork, letter_id: UUID) -> Stored:
    """Have one letter given back now. Raises `LetterNotFoundError` and `IllegalStateChangeError`."""
    stored = await _found(uow, letter_id, lock=True)
    domain.ask(stored.letter)
    asked_for = _redrive(rate_per_s=1.0, requested=1, now=await letter_rows.read_clock(uow.connection))
    uow.tell(redrive_rows.INSERT_REDRIVE, asked_for)
    uow.tell(redrive_rows.MARK_ASKED, {"letter_id": letter_id, "for_redrive": asked_for["id"]})
    await uow.flush()
    return await _found(uow, letter_id)


async def redrive_letters(
    uow: UnitOfWork, wanted: Filter, rate_per_s: float, *, dry_run: bool
) -> tuple[UUID | None, int, dict[str, dict[str, int]]]:
    """Have what the filter finds redriven.

    Returns the redrive's id (None where there is none: a dry run, or nothing was found), how many letters, and how
    many of which state and fingerprint.
    """
    asked_for = _redrive(rate_per_s=rate_per_s, requested=0, now=await letter_rows.read_clock(uow.connection))
    redrive_id: UUID = asked_for["id"]
    counts = await redrive_rows.ask(uow.connection, wanted, redrive_id, LETTERS_PER_REDRIVE_MAX, dry_run=dry_run)
    matched = sum(counts["states"].values())
    if dry_run or not matched:
        return None, matched, counts
    uow.tell(redrive_rows.INSERT_REDRIVE, {**asked_for, "requested": matched})
    return redrive_id, matched, counts


def _redrive(*, rate_per_s: float, requested: int, now: datetime) -> dict[str, Any]:
    return {
        "id": uuid7(),
        "rate_per_s": rate_per_s,
        "requested": requested,
        "started_at": now,
        "next_at": now,
    }


async def discard_letter(uow: UnitOfWork, letter_id: UUID, reason: str) -> Stored:
    """Say that a letter need not take effect. Raises `LetterNotFoundError` and `IllegalStateChangeError`."""
    stored = await _found(uow, letter_id, lock=True)
    now = await letter_rows.read_clock(uow.connection)
    uow.tell(letter_rows.CHANGE_LETTER, rows.changed(domain.discard(stored.letter, reason, now)))
    await uow.flush()
    return await _found(uow, letter_id)


async def get_letter(uow: UnitOfWork, letter_id: UUID) -> Stored:
    """One letter with its message. Raises `LetterNotFoundError`."""
    return await _found(uow, letter_id)


async def list_letters(uow: UnitOfWork, wanted: Filter, before: int | None, page_size: int) -> list[Listed]:
    """The letters that the filter finds, newest first."""
    return await listing.list_letters(uow.connection, wanted, before, page_size)


async def list_groups(uow: UnitOfWork, wanted: Filter) -> list[dict[str, Any]]:
    """The letters that the filter finds, by fingerprint, the largest group first, at most `GROUPS_MAX`."""
    return await listing.list_groups(uow.connection, wanted, GROUPS_MAX)


async def get_redrive(uow: UnitOfWork, redrive_id: UUID) -> tuple[Redrive, int, dict[str, int]]:
    """The redrive, how many letters still wait for it, and the states of those that it came to. Raises
    `RedriveNotFoundError`."""
    found = await redrive_rows.find_redrive(uow.connection, redrive_id)
    if found is None:
        raise RedriveNotFoundError(f"redrive {redrive_id} does not exist")
    waiting, states = await redrive_rows.progress_of(uow.connection, redrive_id)
    return found, waiting, states


async def _found(uow: UnitOfWork, letter_id: UUID, *, lock: bool = False) -> Stored:
    stored = await letter_rows.find_letter(uow.connection, letter_id, lock=lock)
    if stored is None:
        raise LetterNotFoundError(f"dead letter {letter_id} does not exist")
    return stored


# -- housekeeping


async def count_letters(uow: UnitOfWork) -> list[Sample]:
    """How many letters there are of each state and kind; 0 is said, too."""
    counts = await listing.count_letters(uow.connection)
    return [
        Sample("tandem.dead_letters", counts.get((state, kind), 0), {"tandem.state": state, "tandem.kind": kind})
        for state, kind in product((s.value for s in State), (k.value for k in domain.LetterKind))
    ]


async def forget_old(uow: UnitOfWork, retention_s: float) -> int:
    """Forget a portion of what was resolved or discarded for so long; returns how many."""
    now = await letter_rows.read_clock(uow.connection)
    return await letter_rows.prune(uow.connection, now - timedelta(seconds=retention_s), _FORGOTTEN_MAX)
