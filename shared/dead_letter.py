"""Dead Letter Channel: what is written on a message when it is put aside, and how it is read again."""

from __future__ import annotations

import traceback
from dataclasses import replace
from datetime import UTC, datetime

from shared.broker.base import Delivery, Subscription

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

BODY_BYTES_MAX = 16 * 1024 * 1024
"""Largest body of a dead letter: RabbitMQ's own limit, and as much as fits a dead-letter topic."""
HEADERS_BYTES_MAX = 48 * 1024
"""Most that a message's own headers may take: with ours they must fit one AMQP frame of 128 KiB."""

_MESSAGE_CHARACTERS_MAX = 1_000
_STACK_CHARACTERS_MAX = 8_000


def dead_letter_headers(
    subscription: Subscription, delivery: Delivery, error: BaseException, attempts: int
) -> dict[str, str]:
    """Where the message comes from, why it failed and when; body and headers of its own stay as they were."""
    stack = "".join(traceback.format_exception(error))
    return {
        SUBSCRIBER: subscription.subscriber,
        CHANNEL: subscription.channel,
        ERROR_TYPE: type(error).__name__,
        ERROR_MESSAGE: str(error)[:_MESSAGE_CHARACTERS_MAX],
        ERROR_STACK: stack[-_STACK_CHARACTERS_MAX:],
        ATTEMPTS: str(attempts),
        FAILED_AT: datetime.now(UTC).isoformat(),
        POSITION: delivery.position,
    }


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
