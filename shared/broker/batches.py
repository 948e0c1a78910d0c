"""Batch handlers that fail: what both adapters do with one, and how one keeps its failures apart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from shared.broker.base import BatchHandler, Delivery, Settlement
from shared.errors import TransientError

_log = structlog.get_logger(__name__)


async def settle_as_retry(handler: BatchHandler, deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
    """The handler's settlements; `RETRY` for the whole batch when it raises or answers with the wrong count."""
    try:
        settlements = await handler(deliveries)
        if len(settlements) != len(deliveries):
            raise ValueError(f"{len(settlements)} settlements for {len(deliveries)} deliveries")  # noqa: TRY301
    except Exception:  # noqa: BLE001 - the seam's last line: a batch is never lost because its handler broke
        _log.exception("broker.handler_failed", first=deliveries[0].position, count=len(deliveries))
        return [Settlement.RETRY] * len(deliveries)
    return settlements


def isolating(work: Callable[[Sequence[Delivery]], Awaitable[None]]) -> BatchHandler:
    """The handler that does `work` with a whole batch and, if that fails, with each delivery by itself, so that
    what cannot be worked off costs the others nothing. After a `TransientError` all of it comes again."""

    async def handle(deliveries: Sequence[Delivery]) -> list[Settlement]:
        try:
            await work(deliveries)
        except TransientError as error:
            _log.warning("broker.handler_waits", first=deliveries[0].position, error=str(error))
            return [Settlement.RETRY] * len(deliveries)
        except Exception:  # noqa: BLE001 - told apart below, one by one
            if len(deliveries) > 1:
                return [(await handle([delivery]))[0] for delivery in deliveries]
            _log.exception("broker.handler_failed", first=deliveries[0].position, count=1)
            return [Settlement.RETRY]
        return [Settlement.ACK] * len(deliveries)

    return handle
