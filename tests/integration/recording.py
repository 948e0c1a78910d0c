"""What an earlier version left on its servers, recorded as it was, and put back onto today's.

`recorded/<broker>.json` was written by the code of commit 2664dc1: messages as a foreign client saw them, rows as
PostgreSQL gave them. Bytes are `{"bytes": text}` or `{"base64": …}`, and times are moved to now when they are
read, as if all of it had been left a moment ago.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.native import BrokerName, Runtime

CHANNEL = "recorded"
RECORDED = Path(__file__).parent / "recorded"

Recording = dict[str, Any]


def recording(broker: BrokerName) -> Recording:
    """Everything of one broker's file, with bytes, ids and times as such."""
    document = orjson.loads((RECORDED / f"{broker}.json").read_bytes())
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


async def put_back(runtime: Runtime, broker: BrokerName, left: Recording) -> None:
    """Declare what was declared, with the arguments of then, and send the messages that were there."""
    if broker == "rabbit":
        await _put_back_on_rabbitmq(runtime, left)
    else:
        await _put_back_on_kafka(runtime, left)


async def _put_back_on_rabbitmq(runtime: Runtime, left: Recording) -> None:
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchanges: dict[str, aio_pika.abc.AbstractExchange] = {"": channel.default_exchange}
        for name, exchange in left["declared"]["exchanges"].items():
            exchanges[name] = await channel.declare_exchange(
                name, exchange["type"], durable=exchange["durable"], arguments=exchange["arguments"]
            )
        for name, queue in left["declared"]["queues"].items():
            declared = await channel.declare_queue(name, durable=queue["durable"], arguments=queue["arguments"])
            for exchange_name, routing_key in queue["bindings"]:
                await declared.bind(exchanges[exchange_name], routing_key)
        for message in (*left["events"], *left["given_back"], *left["dead_letters"]):
            await exchanges[message["exchange"]].publish(
                aio_pika.Message(message["body"], headers=message["headers"], **message["properties"]),
                message["routing_key"],
                mandatory=True,
            )


async def _put_back_on_kafka(runtime: Runtime, left: Recording) -> None:
    bootstrap = runtime.server_urls()["kafka"]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(name, topic["partitions"], 1, topic_configs=topic["options"])
                for name, topic in left["declared"]["topics"].items()
            ]
        )
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=32 * 1024 * 1024)
    await producer.start()
    try:
        for message in (*left["events"], *left["given_back"], *left["dead_letters"]):
            await producer.send_and_wait(
                message["topic"],
                message["value"],
                key=message["key"],
                partition=message["partition"],
                headers=[(name, value) for name, value in message["headers"]],
            )
    finally:
        await producer.stop()
