"""Sends what leaves a subscriber's stream to its dead-letter place, confirmed: failed, delayed, receipts."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import structlog

from shared.broker import DeadLetterChannel, Delivery, Subscription
from shared.dead_letter.delays import Delays
from shared.dead_letter.headers import (
    BODY_CUT_FROM,
    DELAY_S,
    HEADERS_LEFT_OUT,
    KEY_BYTES_MAX,
    KEY_LEFT_OUT,
    LETTER_ID,
    Kind,
    bounded,
    dead_letter_headers,
    receipt_headers,
)
from shared.errors import UnavailableError
from shared.settings import Settings

_log = structlog.get_logger(__name__)


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
        if not await self._confirmed(_fitting(delivery), headers):
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
        return await self._confirmed(replace(delivery, body=b"", headers={}), headers)

    async def _confirmed(self, delivery: Delivery, headers: Mapping[str, str]) -> bool:
        try:
            try:
                await self._publish(delivery, headers)
            except UnavailableError:
                raise
            except Exception:  # noqa: BLE001 - however a client refuses it: what cannot be put aside comes for ever
                _log.exception("pipeline.dead_letter_stripped", position=delivery.position)
                await self._publish(_bare(delivery), _encodable(headers))
        except UnavailableError as error:
            _log.warning("pipeline.dead_letter_failed", position=delivery.position, error=str(error))
            return False
        return True

    async def _publish(self, delivery: Delivery, headers: Mapping[str, str]) -> None:
        await self._patiently(lambda: self._channel.publish_dead_letter(self._subscription, delivery, headers))


def _fitting(delivery: Delivery) -> Delivery:
    """`bounded`, and with no key that takes the room of the rest."""
    letter = bounded(delivery)
    key_bytes = len((delivery.key or "").encode("utf-8", "surrogatepass"))
    if key_bytes <= KEY_BYTES_MAX:
        return letter
    return replace(letter, key=None, headers={**letter.headers, KEY_LEFT_OUT: str(key_bytes)})


def _bare(delivery: Delivery) -> Delivery:
    """The body alone."""
    kept = {name: delivery.headers[name] for name in (BODY_CUT_FROM,) if name in delivery.headers}
    return replace(delivery, key=None, headers={**kept, HEADERS_LEFT_OUT: str(len(delivery.headers))})


def _encodable(headers: Mapping[str, str]) -> dict[str, str]:
    """An exception's text may hold lone surrogates, which no encoding takes."""
    return {name: value.encode("utf-8", "backslashreplace").decode() for name, value in headers.items()}
