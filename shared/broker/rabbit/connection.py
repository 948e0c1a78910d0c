"""The one connection to RabbitMQ, which FastStream owns, and the bounds on what is asked through it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiormq
from aio_pika.abc import AbstractRobustConnection
from faststream.rabbit import Channel, RabbitBroker

from shared.broker.rabbit.arriving import hand_over_at_once
from shared.broker.rabbit.errors import LOST, refusal, unavailable
from shared.broker.rabbit.frames import read_frames_from_the_buffer
from shared.broker.rabbit.internals import open_channel, use_connection_class
from shared.broker.rabbit.nodes import connection_class, urls_of
from shared.broker.rabbit.unreadable import read_what_is_not_utf8
from shared.errors import ConfigurationError, TandemError
from shared.settings import Settings

HEARTBEAT_S = 10
RECONNECT_INTERVAL_S = 0.5
_REFUSED_PAUSE_S = 1.0
_GOODBYE_S = 3.0
"""For each of the few frames that end a channel in good order; without a connection they are skipped."""


class RabbitConnection:
    """Connects, asks and disconnects. Once it was up, aio-pika brings it back by itself."""

    def __init__(self, settings: Settings, client_name: str) -> None:
        self._settings = settings
        read_what_is_not_utf8()
        read_frames_from_the_buffer()
        hand_over_at_once()
        nodes = urls_of(settings, name=client_name, heartbeat=HEARTBEAT_S)
        self.faststream = RabbitBroker(
            str(nodes[0]),
            timeout=settings.connect_timeout_s,
            fail_fast=True,
            reconnect_interval=RECONNECT_INTERVAL_S,
            default_channel=Channel(publisher_confirms=True, on_return_raises=True),
            graceful_timeout=settings.shutdown_grace_s,
            app_id=None,
            logger=None,
            apply_types=False,
        )
        use_connection_class(self.faststream, connection_class(nodes))

    async def open(self) -> None:
        """Raises `UnavailableError`, or `ConfigurationError` when the server went on refusing for
        `connect_timeout_s`: while it boots it may not know its accounts yet."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._settings.connect_timeout_s
        while True:
            try:
                async with self.setting_up():
                    await self.faststream.connect()
            except TandemError as error:
                await self.close()
                if not isinstance(error, ConfigurationError) or clock.time() + _REFUSED_PAUSE_S > deadline:
                    raise
                await asyncio.sleep(_REFUSED_PAUSE_S)
            else:
                return

    async def close(self) -> None:
        """Within the grace period."""
        try:
            async with asyncio.timeout(self._settings.shutdown_grace_s):
                await self.faststream.stop()
        except LOST:
            return  # nobody is there to say good-bye to

    @asynccontextmanager
    async def asking(self, timeout_s: float | None = None) -> AsyncIterator[None]:
        """What is done inside takes at most `timeout_s` (`connect_timeout_s` unless said); what the client raises
        comes out as ours."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s if timeout_s is None else timeout_s):
                yield
        except LOST as error:
            raise unavailable(error) from error

    @asynccontextmanager
    async def setting_up(self) -> AsyncIterator[None]:
        """As `asking`, for what a process does before it works: what will not pass is a `ConfigurationError`."""
        async with self.asking():
            try:
                yield
            except LOST as error:
                raise refusal(error) from error

    async def client(self) -> AbstractRobustConnection:
        """aio-pika's connection. Raises one of `LOST` while there is none."""
        return await self.faststream.connect()

    async def count(self, queue: str) -> tuple[int, int]:
        """How many messages are ready in the queue, and how many consumers it has. Raises one of `LOST`."""
        channel = await self.open_channel()
        try:
            counted = await channel.queue_declare(queue, passive=True)
        finally:
            await say_goodbye(channel.close())
        return counted.message_count or 0, counted.consumer_count or 0

    async def open_channel(self) -> aiormq.abc.AbstractChannel:
        """A channel below aio-pika's; whoever opens it closes it. Raises one of `LOST`."""
        return await open_channel(await self.client())


async def say_goodbye(frame: Any) -> None:
    """Await one frame of a good-bye; a broker that is away gets none."""
    with contextlib.suppress(*LOST):
        async with asyncio.timeout(_GOODBYE_S):
            await frame
