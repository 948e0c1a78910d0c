"""Dead Letter Channel: what is written on a message when it leaves its subscriber's stream, and how it is read.

The dead-letter place carries three kinds, told apart by the header `tandem-kind`:

    failed    a permanent error, or the attempts are used up
    delayed   a transient failure, or nobody's fault (`DelayError`): back not before `tandem-delay-s` have gone by
    receipt   a letter that was given back has been finished: its effect is recorded

A message keeps `tandem-letter-id` from its first failure on, and `tandem-redrive`, the number of its last redrive.
How long it waits, and how long ago it failed first, is said in seconds and counted by the clock of one PostgreSQL:
the clocks of the processes may differ by hours.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from uuid import UUID, uuid5

from shared.broker import BODY_BYTES_MAX, DEATHS, HEADERS_BYTES_MAX, UNREADABLE, Delivery, Subscription
from shared.envelope import Envelope
from shared.errors import UndecodableError

KIND = "tandem-kind"
LETTER_ID = "tandem-letter-id"
REDRIVE = "tandem-redrive"
DELAY_S = "tandem-delay-s"
DUE_AT = "tandem-due-at"
"""When the delay is over by the sender's clock. Believed only where `tandem-delay-s` is missing: earlier versions
sent this alone, and read nothing else."""
DELAYS = "tandem-delays"
"""How often a transient failure has delayed the event; those that are nobody's fault are not counted."""
AGE_S = "tandem-age-s"
"""How long ago a message that is given back failed first."""
FIRST_FAILED_AT = "tandem-first-failed-at"
"""The same as a time; believed only where `tandem-age-s` is missing, as in what an earlier version gave back."""
SUBSCRIBER = "tandem-subscriber"
CHANNEL = "tandem-channel"
ERROR_TYPE = "tandem-error-type"
ERROR_MESSAGE = "tandem-error-message"
ERROR_STACK = "tandem-error-stack"
ATTEMPTS = "tandem-attempts"
FAILED_AT = "tandem-failed-at"
POSITION = "tandem-position"
BODY_CUT_FROM = "tandem-body-cut-from"
HEADERS_LEFT_OUT = "tandem-headers-left-out"
KEY_LEFT_OUT = "tandem-key-left-out"
"""How many bytes the key had that was too long to go with the letter."""

NOTES = frozenset({KEY_LEFT_OUT, UNREADABLE})
"""What a person wants to know of the message: kept and shown with the letter, and not given back with it."""

OWN_HEADERS = NOTES | {
    KIND, LETTER_ID, REDRIVE, DELAY_S, DUE_AT, DELAYS, AGE_S, FIRST_FAILED_AT, SUBSCRIBER, CHANNEL, ERROR_TYPE,
    ERROR_MESSAGE, ERROR_STACK, ATTEMPTS, FAILED_AT, POSITION, BODY_CUT_FROM, HEADERS_LEFT_OUT,
}  # fmt: skip
"""What was added on the way; everything else came with the message."""

KEY_BYTES_MAX = 64 * 1024
"""Longest key that goes with a letter: with body and headers it must fit a record of the dead-letter topic."""

ERROR_TYPE_CHARACTERS_MAX = 255
ERROR_MESSAGE_CHARACTERS_MAX = 1_000
"""Of the message its beginning is told, and kept."""
ERROR_STACK_CHARACTERS_MAX = 8_000
"""Of the stack its end is told, and kept."""

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_LETTERS = UUID("5b0c7c55-7a1e-4f0e-9a2e-3f4a5d1e7c11")
"""The namespace of the letters' ids."""


class Kind(StrEnum):
    """Why a message is in a dead-letter place."""

    FAILED = "failed"
    DELAYED = "delayed"
    RECEIPT = "receipt"


def dead_letter_headers(
    subscription: Subscription, delivery: Delivery, error: BaseException, attempts: int
) -> dict[str, str]:
    """Where the message comes from, why it failed and when; body and headers of its own stay as they were."""
    stack = "".join(traceback.format_exception(error))
    now = datetime.now(UTC).isoformat()
    return {
        KIND: Kind.FAILED.value,
        LETTER_ID: str(letter_id(subscription.queue, delivery)),
        SUBSCRIBER: subscription.subscriber,
        CHANNEL: subscription.channel,
        ERROR_TYPE: type(error).__name__[:ERROR_TYPE_CHARACTERS_MAX],
        ERROR_MESSAGE: str(error)[:ERROR_MESSAGE_CHARACTERS_MAX],
        ERROR_STACK: stack[-ERROR_STACK_CHARACTERS_MAX:],
        ATTEMPTS: str(attempts),
        FIRST_FAILED_AT: delivery.headers.get(FIRST_FAILED_AT, now),
        FAILED_AT: now,
        POSITION: delivery.position,
    }


def receipt_headers(subscription: Subscription, delivery: Delivery) -> dict[str, str]:
    """That the effect of a delivery that was given back is recorded."""
    return {
        KIND: Kind.RECEIPT.value,
        LETTER_ID: delivery.headers[LETTER_ID],
        REDRIVE: delivery.headers.get(REDRIVE, "0"),
        SUBSCRIBER: subscription.subscriber,
        CHANNEL: subscription.channel,
        POSITION: delivery.position,
    }


def letter_id(queue: str, delivery: Delivery) -> UUID:
    """The header's, if it has one; else the same for every delivery of one event to this subscriber. What is no
    event is told apart by its bytes and where it stood."""
    given = delivery.headers.get(LETTER_ID)
    if given is not None:
        try:
            return UUID(given)
        except ValueError:
            pass  # somebody else's header of that name
    try:
        event = Envelope.decode(delivery.body)
    except UndecodableError:
        return uuid5(_LETTERS, f"{queue} {delivery.position} {sha256(delivery.body).hexdigest()}")
    return uuid5(_LETTERS, f"{queue} {event.identity}")


def is_own(name: str) -> bool:
    """Whether a header was added on the way, by us or by RabbitMQ, and did not come with the message."""
    return name in OWN_HEADERS or name.startswith(DEATHS)


def redrive_number(headers: Mapping[str, str]) -> int:
    """Of the last redrive; 0 for a message that was never given back."""
    return count(headers, REDRIVE)


def count(headers: Mapping[str, str], name: str) -> int:
    """0 where there is nothing, or nothing that can be a count: anybody may have written it."""
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def seconds(headers: Mapping[str, str], name: str) -> float | None:
    """None where there is nothing, or nothing that can be a time: anybody may have written it."""
    text = headers.get(name, "")
    return float(text) if _SECONDS.fullmatch(text) else None


def bounded(delivery: Delivery) -> Delivery:
    """The delivery as it fits a dead-letter place, with a header that says what was cut.

    No client of ours sends anything near these limits; a foreign one may, and what cannot even be put aside
    would stop the stream for good.
    """
    body, headers = delivery.body, delivery.headers
    if sum(len(name.encode()) + len(value.encode()) for name, value in headers.items()) > HEADERS_BYTES_MAX:
        headers = {HEADERS_LEFT_OUT: str(len(headers))}
    if len(body) > BODY_BYTES_MAX:
        headers = {**headers, BODY_CUT_FROM: str(len(body))}
        body = body[:BODY_BYTES_MAX]
    return replace(delivery, body=body, headers=headers)
