"""The session in which a process hears directly what its service publishes to itself, as long as there is one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import asyncpg
import structlog

from shared.backoff import backoff_s
from shared.consuming.direct import DirectWay
from shared.database import SESSION_LOST, session
from shared.publishing import direct
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_LOOK_INTERVAL_S = 10.0
"""A session that hears nothing does not notice that its server is gone: it asks."""


async def hear_directly(settings: Settings, process_name: str, ways: Sequence[DirectWay]) -> None:
    """Tell each of `ways` what is for its channel. Never returns by itself: cancel it to stop.

    Without the session nothing is heard, and all events come by the broker alone.
    """
    by_channel: dict[str, list[DirectWay]] = {}
    for way in ways:
        by_channel.setdefault(way.channel, []).append(way)
    waits = 0
    try:
        while True:
            try:
                async with session(settings, f"{process_name}-direct") as connection:
                    await connection.add_listener(direct.CHANNEL, lambda *told: _tell(by_channel, told[-1]))
                    waits = 0
                    await _until_lost(connection)
            except SESSION_LOST as error:
                _log.warning("direct.deaf", error=str(error) or type(error).__name__)
            await asyncio.sleep(
                backoff_s(waits, settings.retry_wait_initial_s, settings.retry_wait_max_s, random.random)
            )
            waits += 1
    finally:
        for way in ways:
            await way.close()


async def _until_lost(connection: asyncpg.Connection[Any]) -> None:
    """Raises one of `SESSION_LOST`."""
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), _LOOK_INTERVAL_S)
        await connection.execute("select")


def _tell(by_channel: Mapping[str, Sequence[DirectWay]], payload: Any) -> None:
    channel, body = direct.read_told(payload)
    for way in by_channel.get(channel, ()):
        way.hear(body)
