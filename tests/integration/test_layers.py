"""Parts of the whole by themselves: each carries everything, in the order that its mode promises."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from deploy.native import Runtime
from deploy.topology import BrokerName
from experiment.backlog import backlog_messages
from experiment.clock import Clock
from experiment.layers import AS_TANDEM, MODES, LayerError, Mode, raw_client, run_clients, write_messages
from experiment.layers.messages import read_messages
from experiment.workload import Backlog
from shared.broker import Message
from shared.settings import Settings
from tests.integration.databases import migrated_database

EVENTS = 60
ARRIVE_S = 60
NOTE_BYTES = 1_000
USERS = ["0198c0de-0000-7000-8000-000000000001"]


async def written(servers: Runtime) -> tuple[list[Message], int]:
    """A backlog's messages, and how many rows they left."""
    dsn = await migrated_database(servers, "order")
    settings = settings_on(servers, "kafka", postgres_dsn=dsn)
    messages = await backlog_messages(
        settings, USERS, Backlog(events=100), events=EVENTS, seed="layers", clock=Clock(), note_bytes=NOTE_BYTES
    )
    connection = await asyncpg.connect(dsn)
    try:
        left = await connection.fetchval("select (select count(*) from outbox) + (select count(*) from orders)")
    finally:
        await connection.close()
    return messages, int(left)


def settings_on(servers: Runtime, broker: str, **more: Any) -> Settings:
    urls = servers.server_urls()
    return Settings.from_environment(
        broker=broker,
        http_port=1,
        redis_url=urls["redis"],
        rabbit_url=urls["rabbit"],
        kafka_bootstrap=urls["kafka"],
        **{"postgres_dsn": servers.dsn("postgres"), **more},
    )


async def test_a_layer_is_given_the_bytes_of_the_outbox_and_leaves_nothing_there(
    servers: Runtime, tmp_path: Path
) -> None:
    messages, left = await written(servers)
    assert left == 0
    assert len({message.body for message in messages}) == EVENTS
    assert {message.type for message in messages} == {"order.placed", "order.paid"}
    notes = [orjson.loads(each.body)["data"]["note"] for each in messages if each.type == "order.placed"]
    assert {len(note) for note in notes} == {NOTE_BYTES}
    assert len(set(notes)) == len(notes)
    write_messages(tmp_path / "messages", messages)
    assert read_messages(tmp_path / "messages") == messages


@pytest.mark.parametrize("mode", MODES.values(), ids=lambda mode: mode.name)
async def test_consumers_in_a_mode_get_everything_together(servers: Runtime, mode: Mode) -> None:
    messages = [Message("order", "order.placed", f"key-{n % 7}", b'{"number": %d}' % n) for n in range(EVENTS)]
    settings = settings_on(servers, mode.broker)
    published, consumed, ended = 0, 0, asyncio.Event()

    def confirmed(count: int) -> None:
        nonlocal published
        published += count

    def settled(count: int) -> None:
        nonlocal consumed
        consumed += count
        if consumed >= EVENTS:
            ended.set()

    async def consume(places: Sequence[int]) -> None:
        async with raw_client(settings, mode) as client:
            await client.consume(places, settled, ended)

    async with raw_client(settings, mode) as publisher:
        await publisher.declare()
        await publisher.publish(messages, confirmed)
    assert published == EVENTS
    async with asyncio.timeout(ARRIVE_S):
        await asyncio.gather(*(consume(places) for places in mode.shares(min(2, mode.consumers[-1]))))
    assert consumed == EVENTS


def environment_on(servers: Runtime, broker: str, **more: str) -> dict[str, str]:
    """What a process of a layer is told of the servers."""
    urls = servers.server_urls()
    found = {
        "broker": broker,
        "http_port": "1",
        "postgres_dsn": servers.dsn("postgres"),
        "redis_url": urls["redis"],
        "rabbit_url": urls["rabbit"],
        "kafka_bootstrap": urls["kafka"],
    }
    return {f"TANDEM_{name.upper()}": value for name, value in {**found, **more}.items()}


@pytest.mark.parametrize("broker", ["rabbit", "kafka"])
async def test_processes_carry_the_messages_of_a_file_as_often_as_they_are_told(
    broker: BrokerName, tmp_path: Path, servers: Runtime
) -> None:
    async def look() -> None:
        return None

    mode, file, environment = AS_TANDEM[broker], tmp_path / "messages", environment_on(servers, broker)
    write_messages(file, [Message("order", "order.placed", f"key-{n % 7}", b"{}") for n in range(EVENTS)])
    for command in (["publish", mode, str(file), "3"], ["consume", mode, "0"]):
        ran = await run_clients([command], environment, 3 * EVENTS, look)
        assert ran.messages == 3 * EVENTS, command


async def test_a_layer_that_cannot_begin_says_why(tmp_path: Path, servers: Runtime) -> None:
    async def look() -> None:
        raise AssertionError("there is nothing to look at")

    environment = environment_on(servers, "rabbit", rabbit_url="amqp://guest:guest@127.0.0.1:9/")
    (tmp_path / "messages").write_bytes(b"")
    with pytest.raises(LayerError, match=r"(?s)the layer publish did not start: .*refused"):
        await run_clients([["publish", "single-active", str(tmp_path / "messages"), "1"]], environment, 1, look)


def test_places_are_shared_out_once() -> None:
    hashed = MODES["hashed"]
    for count in hashed.consumers:
        shares = hashed.shares(count)
        assert len(shares) == count
        assert sorted(place for share in shares for place in share) == list(range(hashed.places))
