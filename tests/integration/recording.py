"""What an earlier version left on its servers, recorded as it was, and put back onto today's.

`recorded/<broker>.json` was written by the code of commit 2664dc1: messages as a foreign client saw them, rows as
PostgreSQL gave them; so was `services.json`, of the services of then: their rows, and what they had answered.
Bytes are `{"bytes": text}` or `{"base64": …}`, and times are moved to now when they are read, as if all of it had
been left a moment ago.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import aio_pika
import asyncpg
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from alembic import command
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from deploy.native import BrokerName, Runtime
from shared.migrate import configuration, migrate
from tests.conformance.servers_seen import delete_topics

CHANNEL = "recorded"
RECORDED = Path(__file__).parent / "recorded"

Recording = dict[str, Any]


def recording(name: BrokerName | Literal["services"]) -> Recording:
    """Everything of one file, with bytes, ids and times as such."""
    document = orjson.loads((RECORDED / f"{name}.json").read_bytes())
    moved = datetime.now(UTC) - datetime.fromisoformat(document["recorded_at"]["time"])

    def read(value: Any) -> Any:
        match value:
            case {"bytes": text}:
                return text.encode()
            case {"base64": text}:
                return base64.b64decode(text)
            case {"time": text}:
                return datetime.fromisoformat(text) + moved
            case {"uuid": text}:
                return UUID(text)
            case dict():
                return {name: read(part) for name, part in value.items()}
            case list():
                return [read(part) for part in value]
        return value

    result: Recording = read(document)
    return result


async def upgraded(
    runtime: Runtime, service: str, version: str, rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """The DSN of a database of a service as it was left at a version, brought up to date by today's migrations."""
    name = f"{CHANNEL}_{service}_{uuid4().hex[:10]}"
    await asyncio.to_thread(runtime.ensure_databases, [name])
    dsn = runtime.dsn(name)
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool)

    def as_then(connection: Connection) -> None:
        config = configuration(service)
        config.attributes["connection"] = connection
        command.upgrade(config, version)

    async with engine.begin() as connection:
        await connection.run_sync(as_then)
    await engine.dispose()
    for table, left in rows.items():
        await insert_rows(dsn, table, left)
    before, _ = await migrate(service, dsn)
    assert before == version
    return dsn


async def insert_rows(dsn: str, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """As they were, generated columns included; what is generated next comes behind them."""
    connection = await asyncpg.connect(dsn)
    try:
        for row in rows:
            names, numbers = ", ".join(row), ", ".join(f"${number}" for number, _ in enumerate(row, 1))
            statement = f"insert into {table} ({names}) overriding system value values ({numbers})"
            await connection.execute(statement, *row.values())
        for identity in ("position", "sequence"):
            if rows and identity in rows[0]:
                newest = max(row[identity] for row in rows)
                await connection.execute(f"alter table {table} alter {identity} restart with {newest + 1}")
    finally:
        await connection.close()


async def declare(runtime: Runtime, broker: BrokerName, left: Recording) -> None:
    """What was declared, with the arguments of then."""
    if broker == "rabbit":
        async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
            await _declare_on_rabbitmq(await connection.channel(), left["declared"])
        return
    topics = left["declared"]["topics"].items()
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.server_urls()["kafka"])
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(name, topic["partitions"], 1, topic_configs=topic["options"]) for name, topic in topics]
        )
    finally:
        await admin.close()


async def _declare_on_rabbitmq(channel: aio_pika.abc.AbstractChannel, declared: Mapping[str, Any]) -> None:
    for name, exchange in declared["exchanges"].items():
        await channel.declare_exchange(
            name, exchange["type"], durable=exchange["durable"], arguments=exchange["arguments"]
        )
    for name, queue in declared["queues"].items():
        made = await channel.declare_queue(name, durable=queue["durable"], arguments=queue["arguments"])
        for exchange_name, routing_key in queue["bindings"]:
            await made.bind(exchange_name, routing_key)


async def send(runtime: Runtime, broker: BrokerName, messages: Sequence[Mapping[str, Any]]) -> None:
    """Put messages where they were, with the properties and headers that they had."""
    if broker == "rabbit":
        async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
            channel = await connection.channel(on_return_raises=True)
            for message in messages:
                name = message["exchange"]
                exchange = await channel.get_exchange(name) if name else channel.default_exchange
                sent = aio_pika.Message(message["body"], headers=message["headers"], **message["properties"])
                await exchange.publish(sent, message["routing_key"], mandatory=True)
        return
    bootstrap = runtime.server_urls()["kafka"]
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=32 * 1024 * 1024)
    await producer.start()
    try:
        for message in messages:
            await producer.send_and_wait(
                message["topic"],
                message["value"],
                key=message["key"],
                partition=message["partition"],
                headers=[(name, value) for name, value in message["headers"]],
            )
    finally:
        await producer.stop()


async def remove(runtime: Runtime, broker: BrokerName, left: Recording) -> None:
    """Everything that was declared, so that it can be put back once more."""
    if broker == "kafka":
        await delete_topics(runtime, CHANNEL)
        return
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        channel = await connection.channel()
        for name in left["declared"]["queues"]:
            await channel.queue_delete(name)
