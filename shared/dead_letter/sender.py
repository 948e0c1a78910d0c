"""Sends what leaves a subscriber's stream to its dead-letter place, confirmed: failed, delayed, receipts."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import structlog
from msgspec import structs

from shared.broker import DeadLetterChannel, Delivery, Subscription
from shared.dead_letter.delays import Delays
from shared.dead_letter.headers import (
    DELAY_S,
    ERROR_MESSAGE,
    ERROR_STACK,
    LETTER_ID,
    Kind,
    bounded,
    dead_letter_headers,
    receipt_headers,
    with_body_of,
    without_key,
    without_what_was_sent,
)
from shared.errors import UnavailableError
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_REMNANT_BYTES_MAX = 64 * 1024
_REMNANT_CHARACTERS_MAX = 200
"""Of body and error message, with no stack: an AMQP frame of 4 KiB is the smallest that there may be."""

Patiently = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs an action, waiting for a broker that is away; raises `UnavailableError` when it stays away."""


class DeadLetterSender:
    """One subscription's. `transient` are its own exceptions that may pass."""

    def __init__(
        self,
        settings: Settings,
        subscription: Subscription,
        channel: DeadLetterChannel,
        transient: tuple[type[Exception], ...],
        patiently: Patiently,
    ) -> None:
        self._subscription = subscription
        self._channel = channel
        self._delays = Delays(settings, transient)
        self._patiently = patiently

    async def put_aside(self, delivery: Delivery, error: Exception, attempts: int) -> Kind | None:
        """Send it as failed or delayed, whichever the error says; None if the broker did not confirm it."""
        delay = self._delays.headers(delivery, error)
        headers = dead_letter_headers(self._subscription, delivery, error, attempts) | delay
        if not await self._confirmed(delivery, headers):
            return None
        _log.log(
            logging.WARNING if delay else logging.ERROR,
            "pipeline.delayed" if delay else "pipeline.dead_lettered",
            queue=self._subscription.queue,
            position=delivery.position,
            letter=headers[LETTER_ID],
            error_type=type(error).__name__,
            error=str(error)[:500],
            **({"delay_s": delay[DELAY_S]} if delay else {}),
        )
        return Kind.DELAYED if delay else Kind.FAILED

    async def send_receipt(self, delivery: Delivery) -> bool:
        """Say that the effect of a letter that was given back is recorded; whether the broker confirmed it."""
        headers = receipt_headers(self._subscription, delivery)
        return await self._confirmed(structs.replace(delivery, body=b"", headers={}, sent=None), headers)

    async def _confirmed(self, delivery: Delivery, headers: Mapping[str, str]) -> bool:
        """Send it whole; what the broker can never take like that is sent with less and less of it."""
        *more, last = _ever_less_of(delivery, headers)
        try:
            for letter in more:
                try:
                    return await self._published(*letter)
                except UnavailableError:
                    raise
                except Exception:  # noqa: BLE001 - however a client refuses it: what stays comes for ever
                    _log.exception("pipeline.dead_letter_stripped", position=delivery.position)
            return await self._published(*last)
        except UnavailableError as error:
            _log.warning("pipeline.dead_letter_failed", position=delivery.position, error=str(error))
            return False

    async def _published(self, delivery: Delivery, headers: Mapping[str, str]) -> bool:
        await self._patiently(lambda: self._channel.publish_dead_letter(self._subscription, delivery, headers))
        return True


def _ever_less_of(delivery: Delivery, headers: Mapping[str, str]) -> list[tuple[Delivery, Mapping[str, str]]]:
    """The delivery, each time with the headers to add, of which some say what was left out.

    As it fits by every limit that we know of; with nothing of its own but the body; and with so little that any
    broker takes it, whatever its limits are.
    """
    whole, cut = bounded(delivery)
    body, no_headers = without_what_was_sent(whole)
    body, no_key = without_key(body)
    bare = {**_encodable(headers), **no_headers, **no_key, **cut}
    remnant, cut_more = with_body_of(body, _REMNANT_BYTES_MAX)
    told = {**bare, **cut_more, **cut}
    told.pop(ERROR_STACK, None)
    if ERROR_MESSAGE in told:
        told[ERROR_MESSAGE] = told[ERROR_MESSAGE][:_REMNANT_CHARACTERS_MAX]
    return [(whole, {**headers, **cut}), (body, bare), (remnant, told)]


def _encodable(headers: Mapping[str, str]) -> dict[str, str]:
    """An exception's text may hold lone surrogates, which no encoding takes."""
    return {name: value.encode("utf-8", "backslashreplace").decode() for name, value in headers.items()}
