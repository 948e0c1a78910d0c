"""Publishes the same bytes in two ways: through an outbox and its relay, and by the client library alone.

Both wait for the same confirmations, 500 at a time. The library has the settings that the adapters give it. A
window goes first, by the adapter, and does not count: a topic of Kafka's that was just made refuses what comes
before its leaders are known everywhere, and is tried again a tenth of a second later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import aio_pika
import asyncpg
from aiokafka import AIOKafkaProducer

from bench.backlog import fill, subscription
from bench.errors import BenchError
from bench.events import OrderPlaced, WireEvent
from experiment.clock import until
from shared.broker import Subscription, create_broker, destination_name
from shared.broker.kafka import producer_options
from shared.envelope import CONTENT_TYPE
from shared.publishing import Relay
from shared.settings import Settings
from shared.telemetry import Telemetry

_WINDOW = 500
_NOBODY = "nobody"
_STALLED_S = 90.0
_POLL_S = 0.02

_INSERT = """
insert into outbox (shard, channel, type, key, event_id, body)
select $1, $2, $3, * from unnest($4::text[], $5::text[], $6::bytea[])
"""


class Publishing:
    """Measures both ways; `telemetry` is the relay's."""

    def __init__(self, dsn: str, telemetry: Telemetry) -> None:
        self._dsn = dsn
        self._telemetry = telemetry

    async def relayed(self, settings: Settings, channel: str, events: Sequence[WireEvent]) -> float:
        """Events per second, from rows that wait in the outbox until the last is confirmed and deleted.

        Raises `BenchError` when the outbox does not become empty.
        """
        await _settle(settings, channel, events)
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute("truncate outbox")
            keys, ids, bodies = ([getattr(event, name) for event in events] for name in ("key", "id", "body"))
            await connection.execute(_INSERT, 0, channel, OrderPlaced.event_type, keys, ids, bodies)

            duration_s = await until_relayed(settings, self._telemetry, connection, subscription(channel, _NOBODY))
        finally:
            await connection.close()
        return len(events) / duration_s

    async def raw(self, settings: Settings, channel: str, events: Sequence[WireEvent]) -> float:
        """Events per second from the first until the last is confirmed. Raises what the library raises."""
        await _settle(settings, channel, events)
        windows = [events[start : start + _WINDOW] for start in range(0, len(events), _WINDOW)]
        publish = _to_kafka if settings.broker == "kafka" else _to_rabbitmq
        return len(events) / await publish(settings, destination_name(settings.broker, channel), windows)


async def _settle(settings: Settings, channel: str, events: Sequence[WireEvent]) -> None:
    """Have the channel, and a queue or group for nobody, with a window of events in it."""
    await fill(settings, subscription(channel, _NOBODY), events[:_WINDOW], lambda _count: None)


async def until_relayed(
    settings: Settings, telemetry: Telemetry, connection: asyncpg.Connection[Any], wanted: Subscription
) -> float:
    """Seconds in which the relay publishes what the outbox holds, to whoever `wanted` it.

    `connection` looks at the outbox of the settings. Raises `BenchError` when it does not become empty.
    """

    async def is_empty() -> bool:
        return not await connection.fetchval("select exists (select from outbox)")

    async with create_broker(settings, "bench-relay") as broker:
        await broker.declare([wanted.channel], [wanted])
        started_s = time.perf_counter()
        relay = asyncio.create_task(Relay(settings, broker, telemetry).run())
        try:
            emptied = await until(is_empty, _STALLED_S, _POLL_S)
            duration_s = time.perf_counter() - started_s
        finally:
            relay.cancel()
            await asyncio.wait([relay])
    if not emptied:
        raise BenchError(f"the relay on {settings.broker} left events in the outbox for {_STALLED_S:g} s")
    return duration_s


async def _to_kafka(settings: Settings, topic: str, windows: Sequence[Sequence[WireEvent]]) -> float:
    """Seconds that it takes."""
    ours = producer_options(settings.kafka_compression)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=ours["linger_ms"],
        compression_type=ours["compression_type"],
        max_batch_size=ours["max_batch_size"],
    )
    headers = [("content-type", CONTENT_TYPE.encode()), ("type", OrderPlaced.event_type.encode())]
    async with producer:
        started_s = time.perf_counter()
        for window in windows:
            sent = [
                await producer.send(topic, event.body, event.key.encode(), headers=headers) for event in window
            ]
            await asyncio.gather(*sent)
        return time.perf_counter() - started_s


async def _to_rabbitmq(settings: Settings, exchange_name: str, windows: Sequence[Sequence[WireEvent]]) -> float:
    """Seconds that it takes."""
    async with await aio_pika.connect(settings.rabbit_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(exchange_name)
        started_s = time.perf_counter()
        for window in windows:
            messages = [
                aio_pika.Message(
                    event.body, content_type=CONTENT_TYPE, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
                )
                for event in window
            ]
            await asyncio.gather(
                *(exchange.publish(message, OrderPlaced.event_type, mandatory=True) for message in messages)
            )
        return time.perf_counter() - started_s
