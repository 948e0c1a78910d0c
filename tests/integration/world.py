"""What an integration test stands on: an empty database and a channel of its own on the real servers.

The tests' one event, `thing.happened`, carries a number and a key; its one effect is a row in `effect`, a table
without any uniqueness, so that an effect that took place twice is seen twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import BigInteger, Column, Identity, Integer, MetaData, Table, Text, insert, text

from deploy.native import BrokerName, Runtime
from shared.broker.base import Broker, DeadLetter, Delivery, Message, Subscription
from shared.broker.connect import create_broker
from shared.consuming import inbox
from shared.consuming.claims import Claims
from shared.consuming.pipeline import Pipeline
from shared.consuming.subscriber import Handler, Subscriber
from shared.database import Database
from shared.envelope import Envelope
from shared.errors import UnavailableError
from shared.event import Event, EventData
from shared.publishing import outbox
from shared.publishing.uow import UnitOfWork, UnitsOfWork
from shared.settings import Settings
from shared.telemetry.telemetry import Telemetry

DATABASE = "integration"
TYPE = "thing.happened"
SUBSCRIBER = "tester"
DEADLINE_S = 60.0
"""Bounds a wait; no test measures time."""

_with_tables: set[Path] = set()
"""The servers, by their root, on which this process has seen the tables."""
metadata = MetaData()
effect = Table(
    "effect",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("number", Integer, nullable=False),
)
INSERT_EFFECT = insert(effect)

HandlerFunction = Callable[[Event[Any], UnitOfWork], Awaitable[None]]


class Happened(EventData):
    """The data of the tests' event."""

    channel = "replaced-by-each-test"
    event_type = TYPE
    number: int


def take_effect(event: Event[Happened], uow: UnitOfWork) -> None:
    """The effect of one event."""
    uow.tell(INSERT_EFFECT, {"event_id": event.id, "key": event.envelope.key, "number": event.data.number})


async def on_happened(event: Event[Happened], uow: UnitOfWork) -> None:
    take_effect(event, uow)


async def eventually(
    condition: Callable[[], Awaitable[Any]], what: str, deadline_s: float = DEADLINE_S, interval_s: float = 0.05
) -> Any:
    """Ask until the answer is true; return it. Fails, saying what was awaited, after `deadline_s`."""
    deadline = time.monotonic() + deadline_s
    while True:
        answer = await condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}; last answer: {answer!r}"
        await asyncio.sleep(interval_s)


def happened(number: int, key: str = "k", **attributes: Any) -> Envelope:
    """One event."""
    return Envelope(
        **{
            "source": "/tests",
            "type": TYPE,
            "partitionkey": key,
            "dataschema": Happened.schema_uri(),
            "data": {"number": number},
            **attributes,
        }
    )


@cache
def _telemetry(broker_name: BrokerName) -> Telemetry:
    """One per broker: its Prometheus reader stays registered for good."""
    unused = {
        "http_port": 1,
        "postgres_dsn": "postgresql://-",
        "redis_url": "redis://-",
        "rabbit_url": "amqp://-",
        "kafka_bootstrap": "-:1",
    }
    return Telemetry(Settings.from_environment(broker=broker_name, **unused), "tester")


class World:
    """One test's part of the servers: its channel, the emptied database, and what runs on them."""

    def __init__(self, runtime: Runtime, broker_name: BrokerName) -> None:
        self.runtime = runtime
        self.broker_name = broker_name
        self.name = f"t{uuid4().hex[:10]}"
        self.stack = AsyncExitStack()
        self.default_overrides: dict[str, Any] = {}
        self.subscriber_options: dict[str, Any] = {}
        self.telemetry = _telemetry(broker_name)
        self._publisher: Broker | None = None
        self.use_channel(self.name)

    def use_channel(self, channel: str) -> None:
        """The test's own, unless it needs one of a certain name."""
        self.channel = channel
        self.data: type[Happened] = type("Happened", (Happened,), {"channel": channel, "__module__": __name__})

    async def open(self) -> None:
        """Make the tables, or empty them: a database per test would cost a second, and more to shut down."""
        first = self.runtime.root not in _with_tables
        if first:
            await asyncio.to_thread(self.runtime.ensure_databases, [DATABASE])
        self.database = await self.opened_database()
        self.units = UnitsOfWork(self.database, "tester", self.telemetry.spans)
        async with self.database.engine.begin() as connection:
            for part in (inbox.metadata, outbox.metadata, metadata) if first else ():
                await connection.run_sync(part.create_all)
            await connection.execute(text("truncate inbox, outbox, effect restart identity"))
        _with_tables.add(self.runtime.root)
        await eventually(self._no_relay_is_left, "the session of an earlier test's relay has ended")

    async def _no_relay_is_left(self) -> bool:
        """PostgreSQL ends a session, and frees its lock, a little after the client has hung up."""
        query = text(
            "select count(*) from pg_stat_activity where datname = :database and application_name ~ '^relay-'"
        )
        async with self.database.engine.connect() as connection:
            return not (await connection.execute(query, {"database": DATABASE})).scalar_one()

    async def opened_database(self, **overrides: Any) -> Database:
        """A pool, closed at the end of the test."""
        database = Database(self.settings(**overrides), self.name)
        self.stack.push_async_callback(database.close)
        return database

    def setting_values(self, **overrides: Any) -> dict[str, Any]:
        """Settings for this test's servers; waits are short, lifetimes are the defaults."""
        urls = self.runtime.server_urls()
        values: dict[str, Any] = {
            "broker": self.broker_name,
            "http_port": 1,
            "postgres_dsn": self.runtime.dsn(DATABASE),
            "redis_url": urls["redis"],
            "rabbit_url": urls.get("rabbit"),
            "kafka_bootstrap": urls.get("kafka"),
            "kafka_partitions": 3,
            "retry_wait_initial_s": 0.01,
            "retry_wait_max_s": 0.1,
            "relay_poll_interval_s": 0.1,
        }
        return {**values, **self.default_overrides, **overrides}

    def settings(self, **overrides: Any) -> Settings:
        return Settings.from_environment(**self.setting_values(**overrides))

    # -- building parts

    async def claims(self, *, alive: bool = True, **overrides: Any) -> Claims:
        """A process's claims, with its heartbeat unless it is dead."""
        claims = Claims(self.settings(**overrides))
        self.stack.push_async_callback(claims.close)
        if alive:
            await self.stack.enter_async_context(claims.heartbeat())
        return claims

    def subscriber(
        self, handler: HandlerFunction = on_happened, transient: tuple[type[Exception], ...] = ()
    ) -> Subscriber:
        return Subscriber(
            channel=self.channel,
            name=SUBSCRIBER,
            handlers=(Handler(self.data, handler),),
            ignores=frozenset({"thing.ignored"}),
            transient=transient,
            **self.subscriber_options,
        )

    @property
    def subscription(self) -> Subscription:
        answers = bool(self.subscriber_options.get("answers"))
        return Subscription(channel=self.channel, subscriber=SUBSCRIBER, types=frozenset({TYPE}), answers=answers)

    async def broker(self, **overrides: Any) -> Broker:
        """A connected adapter with this test's channel declared; disconnected at the end of the test."""
        broker = create_broker(self.settings(**overrides), self.name)
        await self.stack.enter_async_context(broker)
        await broker.declare((self.channel,), (self.subscription,))
        return broker

    async def publisher(self) -> Broker:
        if self._publisher is None:
            self._publisher = await self.broker()
        return self._publisher

    async def pipeline(
        self,
        handler: HandlerFunction = on_happened,
        *,
        broker: Broker | None = None,
        claims: Claims | None = None,
        units: UnitsOfWork | None = None,
        transient: tuple[type[Exception], ...] = (),
        **overrides: Any,
    ) -> Pipeline:
        """The stages alone: call it with deliveries."""
        return Pipeline(
            self.settings(**overrides),
            subscriber=self.subscriber(handler, transient),
            broker=broker or await self.publisher(),
            claims=claims or await self.claims(**overrides),
            units=units or self.units,
            telemetry=self.telemetry,
        )

    @asynccontextmanager
    async def consumer(self, handler: HandlerFunction = on_happened, **parts: Any) -> AsyncIterator[Pipeline]:
        """A subscription that runs until the block is left; `parts` as for `pipeline`."""
        overrides = {name: value for name, value in parts.items() if name not in {"broker", "claims", "units"}}
        async with AsyncExitStack() as stack:
            claims = parts.pop("claims", None)
            if claims is None:
                claims = Claims(self.settings(**overrides))
                stack.push_async_callback(claims.close)
                await stack.enter_async_context(claims.heartbeat())
            broker = create_broker(self.settings(**overrides), f"{self.name}-consumer")
            await stack.enter_async_context(broker)
            pipeline = await self.pipeline(handler, **{**parts, "broker": broker, "claims": claims})
            await broker.subscribe(pipeline.subscription, pipeline)
            yield pipeline

    def deliver(self, events: Sequence[Envelope | bytes]) -> list[Delivery]:
        """A batch as an adapter would hand it over."""
        return [
            Delivery(
                body=event if isinstance(event, bytes) else event.encode(),
                headers={},
                channel=self.channel,
                key="k",
                redelivered=False,
                position=f"{self.channel}#{index}",
                token=None,
            )
            for index, event in enumerate(events)
        ]

    # -- publishing and looking

    async def publish(self, *events: Envelope | bytes, key: str = "k") -> None:
        """Publish past the outbox, confirmed; bytes go out as they are, as an event that the queue wants."""
        messages = [
            Message(self.channel, TYPE, key, event)
            if isinstance(event, bytes)
            else Message(self.channel, TYPE, event.key, event.encode())
            for event in events
        ]
        broker = await self.publisher()
        failures = await broker.publish(messages)
        assert failures == []

    async def effects(self) -> list[tuple[str, int]]:
        """(key, number) of every effect, in the order of the rows."""

        async def read() -> tuple[list[tuple[str, int]]] | None:
            try:
                async with self.database.transaction() as connection:
                    rows = await connection.execute(text("select key, number from effect order by position"))
                    return ([(row.key, row.number) for row in rows],)
            except UnavailableError:  # a server that was killed leaves dead connections in the pool
                return None

        effects: tuple[list[tuple[str, int]]] = await eventually(read, "PostgreSQL answers")
        return effects[0]

    async def numbers(self) -> list[int]:
        return [number for _, number in await self.effects()]

    async def count(self, table: str) -> int:
        async with self.database.engine.connect() as connection:
            return int((await connection.execute(text(f"select count(*) from {table}"))).scalar_one())

    async def await_effects(self, count: int, deadline_s: float = DEADLINE_S) -> list[int]:
        """Wait for at least so many effects; their numbers in order."""

        async def enough() -> bool:
            return len(await self.numbers()) >= count

        await eventually(enough, f"{count} effects", deadline_s)
        return await self.numbers()

    async def dead_letters(self) -> list[DeadLetter]:
        return await (await self.publisher()).dead_letters(self.subscription)

    async def await_dead_letters(self, count: int, deadline_s: float = DEADLINE_S) -> list[DeadLetter]:
        async def enough() -> list[DeadLetter] | None:
            letters = await self.dead_letters()
            return letters if len(letters) >= count else None

        letters: list[DeadLetter] = await eventually(enough, f"{count} dead letters", deadline_s, 0.5)
        return letters

    async def drained(self) -> None:
        """Everything published so far is settled: a last event, behind all others of every key, took effect.

        One such event per partition or queue would be needed in general; here its effect is awaited under each
        of the keys that were used.
        """
        keys = sorted({key for key, _ in await self.effects()} | {"k"})
        marks = [happened(-index - 1, key) for index, key in enumerate(keys)]
        await self.publish(*marks)

        async def all_there() -> bool:
            return {mark.data["number"] for mark in marks} <= set(await self.numbers())

        await eventually(all_there, "the last event of each key took effect")

    async def real_numbers(self) -> list[int]:
        """The numbers without the marks of `drained`."""
        return [number for number in await self.numbers() if number >= 0]


def keys_of(effects: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    """The numbers of each key, in order."""
    grouped: dict[str, list[int]] = {}
    for key, number in effects:
        grouped.setdefault(key, []).append(number)
    return grouped
