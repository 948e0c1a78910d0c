"""Clients beside the producer and the consumers, to ask the cluster one thing and be gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError

from shared import cancellation
from shared.broker.kafka.access import connection_options
from shared.broker.kafka.errors import LOST, failure, refusal
from shared.broker.kafka.internals import client_of, reason_of_each, tasks_of
from shared.broker.kafka.unpacking import unpack_within_bounds
from shared.settings import Settings

REQUEST_TIMEOUT_MS = 10_000
RETRY_BACKOFF_MS = 250
"""aiokafka logs every attempt while the cluster is away: its default of 100 ms fills the log."""
METADATA_MAX_AGE_MS = 5_000
"""What was deleted and is there again, and partitions that were added, are noticed within this time; unset, within
five minutes."""
GOODBYE_S = 3.0
_REASON_S = 3.0
ISOLATION_LEVEL = "read_committed"
"""Of everybody who reads: what a producer took back is nobody's (KIP-98), and what it may yet take back waits."""


class KafkaClients:
    """Makes and closes them. What is asked goes into `asking`, the client's `start` as well."""

    def __init__(self, settings: Settings, client_name: str) -> None:
        self._options = {**connection_options(settings), "client_id": client_name}
        self._timeout_s = settings.connect_timeout_s
        unpack_within_bounds()

    @asynccontextmanager
    async def asking(self, timeout_s: float | None = None) -> AsyncIterator[None]:
        """What is done inside takes at most `timeout_s` (`connect_timeout_s` unless said); what the client raises
        comes out as ours."""
        try:
            async with asyncio.timeout(self._timeout_s if timeout_s is None else timeout_s):
                yield
        except LOST as error:
            raise failure(error) from error

    @asynccontextmanager
    async def setting_up(self) -> AsyncIterator[None]:
        """As `asking`, for what a process does before it works: what will not pass is a `ConfigurationError`."""
        async with self.asking():
            try:
                yield
            except KafkaConnectionError as error:
                # What aiokafka says of all servers together hides why: a wrong password, an unknown authority.
                raise refusal(await reason_of_each(self._options, _REASON_S) or error) from error
            except LOST as error:
                raise refusal(error) from error

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """Not started yet; closed on leaving."""
        admin = AIOKafkaAdminClient(**self._options, request_timeout_ms=REQUEST_TIMEOUT_MS)
        try:
            yield admin
        finally:
            await ended(admin.close(), GOODBYE_S)

    @asynccontextmanager
    async def onlooker(self, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer outside every group, so that looking changes nothing. Not started yet; closed on leaving."""
        consumer = AIOKafkaConsumer(
            *topics,
            **self._options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=ISOLATION_LEVEL,
        )
        try:
            yield consumer
        finally:
            if not await ended(consumer.stop(), GOODBYE_S):
                await end_outright(consumer)


async def ended(good_bye: Coroutine[Any, Any, Any], grace_s: float) -> bool:
    """Run a client's `stop` or `close` within `grace_s`; whether it came to its end.

    In a task of its own: when the cluster is away, aiokafka lets the cancellation of its own tasks escape,
    and here it would pass for ours.
    """
    task = asyncio.create_task(good_bye)
    await asyncio.wait({task}, timeout=grace_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not task.cancelled() and task.exception() is None


async def end_outright(consumer: AIOKafkaConsumer) -> None:
    """End a consumer whose `stop` did not come to its end: it went only as far as to the first of its tasks that
    waits for the cluster, and all others would go on asking for as long as this process lives."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_S):
            while left := tasks_of(consumer):
                await asyncio.gather(*map(cancellation.end, left))
    await ended(client_of(consumer).close(), GOODBYE_S)
