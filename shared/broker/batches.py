"""What both adapters do with a batch handler that fails."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from shared.broker.base import BatchHandler, Delivery, Settlement

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
