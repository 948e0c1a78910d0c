"""Dead Letter Channel: what is written on a message when it is put aside, and how it is read again."""

from __future__ import annotations

import traceback
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
