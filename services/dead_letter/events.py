"""What comes out of the dead-letter places, read. This service publishes no events and handles none.

The bytes are whatever they are: the subscriber could not use them, and this service only keeps them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import orjson
from msgspec import structs

from services.dead_letter.domain import KILLER, Cause, LetterKind, fingerprint
from shared.broker import DEATH, Delivery, Header, Sent, Subscription
from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import NOTES, Kind, count, is_own, letter_id, redrive_number
from shared.envelope import EVENT_BYTES_MAX
from shared.settings import Settings

_BY_BROKER = {
    "delivery_limit": (KILLER, "RabbitMQ delivered it as often as the queue allows"),
    "expired": ("MessageExpiredError", "it waited in its queue for longer than the queue keeps messages"),
    "rejected": ("MessageRejectedError", "a consumer refused it"),
}
"""Why RabbitMQ itself parked a message, by the reason in its `x-death` header."""
_UNKNOWN = ("UnknownError", "nobody wrote down why it was put aside")
_ATTRIBUTE_LENGTH_MAX = 255
_BATCH_MAX = 50
"""Letters in one transaction: each may have 16 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One message from a dead-letter place. `cause` is None for a receipt.

    `headers` are those that it had when it was published, and what is to be known of it (`NOTES`); `sent` is the
    message exactly as it was published, None where the broker's adapter does not know; `source`,
    `event_id` and `type` are None where the bytes cannot be read.
    """

    letter_id: UUID
    redrive: int
    cause: Cause | None
    subscription: Subscription
    body: bytes
    headers: dict[str, str]
    sent: Sent | None
    key: str | None
    whole: bool
    source: str | None
    event_id: str | None
    type: str | None


def places(settings: Settings) -> list[Subscription]:
    """The subscriptions whose dead letters are kept, as the settings name them."""
    return [
        Subscription(
            channel=channel,
            subscriber=subscriber,
            types=frozenset(),
            batch_max=_BATCH_MAX,
            in_flight_max=2 * _BATCH_MAX,
        )
        for subscriber, channel in (queue.split(".") for queue in settings.dead_letter_subscriptions)
    ]


def read(subscription: Subscription, delivery: Delivery) -> Received:
    """What a message from a dead-letter queue or topic says.

    Never fails: a message with strange headers, or with none, is a failure of unknown cause.
    """
    given = delivery.headers
    attributes = _attributes(delivery.body)
    return Received(
        letter_id=letter_id(subscription.queue, delivery),
        redrive=redrive_number(given),
        cause=None if given.get(dead_letter.KIND) == Kind.RECEIPT else _cause(subscription, delivery),
        subscription=subscription,
        body=delivery.body,
        headers={
            _storable(name): _storable(text) for name, text in given.items() if name in NOTES or not is_own(name)
        },
        sent=_sent(delivery),
        key=_storable(delivery.key or attributes.get("partitionkey") or attributes.get("subject") or "") or None,
        whole=dead_letter.BODY_CUT_FROM not in given and dead_letter.HEADERS_LEFT_OUT not in given,
        source=attributes.get("source"),
        event_id=attributes.get("id"),
        type=attributes.get("type"),
    )


def unstorable(subscription: Subscription, delivery: Delivery) -> Received:
    """What is kept of a message that cannot be kept whole, whatever in it is to blame: the bytes, and which letter
    it is."""
    which = (dead_letter.KIND, dead_letter.LETTER_ID, dead_letter.REDRIVE)
    told = {name: delivery.headers[name] for name in which if name in delivery.headers}
    told[dead_letter.HEADERS_LEFT_OUT] = str(len(delivery.headers))
    bare = read(subscription, structs.replace(delivery, headers=told, key=None))
    return replace(bare, sent=None, key=None, source=None, event_id=None, type=None)


def _cause(subscription: Subscription, delivery: Delivery) -> Cause:
    given = delivery.headers
    error_type, message = _BY_BROKER.get(_reason(given.get(DEATH, "")), _UNKNOWN)
    # Anybody may have written these: no more of them is kept, and looked at, than a subscriber of ours tells.
    error_type = _storable(given.get(dead_letter.ERROR_TYPE, error_type))[: dead_letter.ERROR_TYPE_CHARACTERS_MAX]
    message = _storable(given.get(dead_letter.ERROR_MESSAGE, message))[: dead_letter.ERROR_MESSAGE_CHARACTERS_MAX]
    stack = _storable(given.get(dead_letter.ERROR_STACK, ""))[-dead_letter.ERROR_STACK_CHARACTERS_MAX :]
    delayed = given.get(dead_letter.KIND) == Kind.DELAYED
    return Cause(
        kind=LetterKind.DELAYED if delayed else LetterKind.FAILED,
        error_type=error_type,
        error_message=message,
        error_stack=stack,
        fingerprint=fingerprint(subscription.queue, error_type, message, stack),
        attempts=count(given, dead_letter.ATTEMPTS),
        due_at=dead_letter.moment(given, dead_letter.DUE_AT) if delayed else None,
        delay_s=dead_letter.seconds(given, dead_letter.DELAY_S) if delayed else None,
        delays=count(given, dead_letter.DELAYS),
    )


def _sent(delivery: Delivery) -> Sent | None:
    """Without what was added on the way."""
    sent = delivery.as_sent()
    return sent and replace(sent, headers=[header for header in sent.headers if not is_own(header.name)])


def _reason(deaths: str) -> str:
    """The newest death comes first in RabbitMQ's list, which is text by now."""
    found = {reason: deaths.find(reason) for reason in _BY_BROKER if reason in deaths}
    return min(found, key=lambda reason: found[reason], default="")


def _attributes(body: bytes) -> dict[str, str]:
    """Those of an envelope, as far as the bytes can be read; no more of it is asked. What is too long for an event
    is not read: unpacked, it may take twenty times the room."""
    if len(body) > EVENT_BYTES_MAX:
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(document, dict):
        return {}
    names = ("id", "source", "type", "subject", "partitionkey")
    found = {name: document.get(name) for name in names}
    return {
        name: _storable(value)[:_ATTRIBUTE_LENGTH_MAX]
        for name, value in found.items()
        if isinstance(value, str) and value
    }


def _storable(text: str) -> str:
    """PostgreSQL takes no NUL in a text."""
    return text.replace("\x00", "\\x00")


def sent_to_json(sent: Sent | None) -> dict[str, Any] | None:
    """The object that is kept; that of the letter's `sent`."""
    if sent is None:
        return None
    return {
        "headers": [{"name": h.name, "type": h.type, "value": h.value} for h in sent.headers],
        "properties": dict(sent.properties),
        "key": None if sent.key is None else base64.b64encode(sent.key).decode(),
        "body_is_null": sent.body_is_null,
    }


def sent_from_json(kept: dict[str, Any] | None) -> Sent | None:
    """None for a letter that an earlier version has kept."""
    if kept is None:
        return None
    return Sent(
        headers=[Header(**header) for header in kept["headers"]],
        properties=kept["properties"],
        key=None if kept["key"] is None else base64.b64decode(kept["key"]),
        body_is_null=kept["body_is_null"],
    )
