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

from msgspec import structs

from shared.broker import (
    BODY_BYTES_MAX,
    DEATHS,
    HEADERS_BYTES_MAX,
    PROPERTIES_LEFT_OUT,
    UNREADABLE,
    Delivery,
    Header,
    Sent,
    Subscription,
)
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

NOTES = frozenset({KEY_LEFT_OUT, PROPERTIES_LEFT_OUT, UNREADABLE})
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
COUNT_MAX = 2_000_000_000
"""The largest count that is believed; four bytes, as PostgreSQL has them, hold some more than that."""
_COUNT_DIGITS_MAX = 10
_HEADER_OVERHEAD_BYTES = 8
"""Beside name and value: RabbitMQ's lengths and type take 6, Kafka's 2 to 8."""
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
    first = moment(delivery.headers, FIRST_FAILED_AT)
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
        FIRST_FAILED_AT: now if first is None else first.isoformat(),
        FAILED_AT: now,
        POSITION: delivery.position,
    }


def receipt_headers(subscription: Subscription, delivery: Delivery) -> dict[str, str]:
    """That the effect of a delivery that was given back is recorded."""
    return {
        KIND: Kind.RECEIPT.value,
        LETTER_ID: str(letter_id(subscription.queue, delivery)),
        REDRIVE: str(redrive_number(delivery.headers)),
        SUBSCRIBER: subscription.subscriber,
        CHANNEL: subscription.channel,
        POSITION: delivery.position,
    }


def letter_id(queue: str, delivery: Delivery) -> UUID:
    """The header's, if it has one; else the same for every delivery of one event to this subscriber. What is no
    event is told apart by its bytes and where it stood."""
    given = given_letter_id(delivery.headers)
    if given is not None:
        return given
    try:
        event = Envelope.decode(delivery.body)
    except UndecodableError:
        return uuid5(_LETTERS, f"{queue} {delivery.position} {sha256(delivery.body).hexdigest()}")
    return uuid5(_LETTERS, f"{queue} {event.identity}")


def given_letter_id(headers: Mapping[str, str]) -> UUID | None:
    """Of a message that was given back, or is a letter; None where there is nothing, or somebody else's header."""
    try:
        return UUID(headers.get(LETTER_ID, ""))
    except ValueError:
        return None


def is_own(name: str) -> bool:
    """Whether a header was added on the way, by us or by RabbitMQ, and did not come with the message."""
    return name in OWN_HEADERS or name.startswith(DEATHS)


def redrive_number(headers: Mapping[str, str]) -> int:
    """Of the last redrive; 0 for a message that was never given back."""
    return count(headers, REDRIVE)


def count(headers: Mapping[str, str], name: str) -> int:
    """0 where there is nothing, or nothing that can be a count: anybody may have written it. At most
    `COUNT_MAX`."""
    text = headers.get(name, "")
    counted = int(text) if text.isascii() and text.isdigit() and len(text) <= _COUNT_DIGITS_MAX else 0
    return counted if counted <= COUNT_MAX else 0


def seconds(headers: Mapping[str, str], name: str) -> float | None:
    """None where there is nothing, or nothing that can be a time: anybody may have written it."""
    text = headers.get(name, "")
    return float(text) if _SECONDS.fullmatch(text) else None


def moment(headers: Mapping[str, str], name: str) -> datetime | None:
    """A time in UTC, which one without an offset is taken for. None where there is nothing, or nothing that can be
    one: also of the first and the last hours that a calendar has, which are outside of it in UTC."""
    try:
        told = datetime.fromisoformat(headers.get(name, ""))
        return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def bounded(delivery: Delivery) -> tuple[Delivery, dict[str, str]]:
    """The delivery as it fits a dead-letter place, and headers that say what was cut.

    No client of ours sends anything near these limits; a foreign one may, and what cannot even be put aside
    would stop the stream for good.
    """
    letter, notes = with_body_of(delivery, BODY_BYTES_MAX)
    if max(headers_bytes(letter.headers), _sent_bytes(letter)) > HEADERS_BYTES_MAX:
        notes[HEADERS_LEFT_OUT] = str(len(letter.headers))
        letter = structs.replace(letter, headers={}, token=letter.as_sent(), sent=_without_headers)
    if _bytes(letter.key or "") > KEY_BYTES_MAX:
        letter, left_out = without_key(letter)
        notes |= left_out
    return letter, notes


def without_what_was_sent(delivery: Delivery) -> tuple[Delivery, dict[str, str]]:
    """The delivery without headers and properties of its own, and the headers that say so, if it had any."""
    sent = delivery.as_sent()
    notes = {HEADERS_LEFT_OUT: str(len(delivery.headers))} if delivery.headers else {}
    if sent is not None and sent.properties:
        notes[PROPERTIES_LEFT_OUT] = ", ".join(sent.properties)
    return structs.replace(delivery, headers={}, sent=None), notes


def without_key(delivery: Delivery) -> tuple[Delivery, dict[str, str]]:
    """The delivery without its key, and the header that says so, if it had one."""
    if delivery.key is None:
        return delivery, {}
    return structs.replace(delivery, key=None), {KEY_LEFT_OUT: str(_bytes(delivery.key))}


def with_body_of(delivery: Delivery, bytes_max: int) -> tuple[Delivery, dict[str, str]]:
    """The delivery with so many bytes of its body at most, and the header that says so, if it had more."""
    if len(delivery.body) <= bytes_max:
        return delivery, {}
    return structs.replace(delivery, body=delivery.body[:bytes_max]), {BODY_CUT_FROM: str(len(delivery.body))}


def headers_bytes(headers: Mapping[str, str]) -> int:
    """How many they take on the wire at most: a thousand empty ones do take room."""
    return sum(_HEADER_OVERHEAD_BYTES + _bytes(name) + _bytes(value) for name, value in headers.items())


def _without_headers(sent: Sent | None) -> Sent | None:
    return None if sent is None else replace(sent, headers=())


def _sent_bytes(delivery: Delivery) -> int:
    """Of the headers as they were sent: of repeated ones the text knows the last alone."""
    sent = delivery.as_sent()
    if sent is None:
        return 0
    return sum(_HEADER_OVERHEAD_BYTES + _bytes(header.name) + _value_bytes(header) for header in sent.headers)


def _value_bytes(header: Header) -> int:
    value_bytes = _bytes(str(header.value or ""))
    return value_bytes * 3 // 4 if header.type in ("bytes", "text-base64") else value_bytes


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
