"""What the wallet does besides: close what is over, and be ready to ask before anybody wants to."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from services.wallet.events import ShareAsked
from services.wallet.handlers.closing import CLOSED_MAX, close_over, tidy_receipts
from shared.errors import TransientError
from shared.process import Parts, until_available

_log = structlog.get_logger(__name__)

_INTERVAL_S: Final = 5.0


async def keep_closing(parts: Parts) -> None:
    """Close distributions and receipts that are over, now and every five seconds, as long as the process runs."""
    while True:
        more = False
        try:
            async with parts.units.begin() as uow:
                more = await close_over(uow) == CLOSED_MAX
            async with parts.units.begin() as uow:
                await tidy_receipts(uow)
        except TransientError as error:
            _log.warning("distributions.waiting", error=str(error))
        await asyncio.sleep(0 if more else _INTERVAL_S)


async def be_ready_to_ask(parts: Parts) -> None:
    """Do what the first request for a share would do by itself, in a process that also serves HTTP."""
    if "api" in parts.settings.roles:
        await until_available(lambda: parts.requests.prepare(ShareAsked.channel))
