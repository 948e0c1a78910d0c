"""A RabbitMQ client takes the nodes of a cluster in turn, also those that never answered."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from aio_pika.exceptions import AMQPConnectionError

from shared.broker.rabbit.nodes import connection_class, node_urls


def test_the_setting_names_the_nodes_and_options_reach_each_of_them() -> None:
    nodes = node_urls("amqp://u:p@one:1/, amqp://u:p@two:2/v", name="n", heartbeat=10)
    assert [(node.host, node.port, node.path) for node in nodes] == [("one", 1, "/"), ("two", 2, "/v")]
    assert {node.query_string for node in nodes} == {"name=n&heartbeat=10"}


async def test_the_next_attempt_goes_to_the_next_node() -> None:
    """Whoever is connected to and hangs up has been tried."""
    tried: list[int] = []

    async def hang_up(number: int, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.append(number)
        writer.close()

    servers = [await asyncio.start_server(partial(hang_up, number), "127.0.0.1", 0) for number in range(3)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    make = connection_class(node_urls(",".join(f"amqp://u:p@127.0.0.1:{port}/" for port in ports)))
    try:
        for _ in range(4):  # a process that starts makes a new connection for every attempt
            connection = make(node_urls(f"amqp://u:p@127.0.0.1:{ports[0]}/")[0], fail_fast=True)
            with pytest.raises((AMQPConnectionError, ConnectionError)):
                await connection.connect(timeout=5)
            await connection.close()
    finally:
        for server in servers:
            server.close()
    assert tried == [0, 1, 2, 0]


async def test_a_connection_that_is_given_up_while_it_is_made_leaves_no_task_behind() -> None:
    """What went on by itself would keep a process from ending when it is told to stop."""
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        [node] = node_urls(f"amqp://u:p@127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        before = asyncio.all_tasks()
        connecting = asyncio.create_task(connection_class([node])(node, fail_fast=True).connect(timeout=60))
        await asyncio.wait_for(asked.wait(), 10)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        left = {task for task in asyncio.all_tasks() - before if "RobustConnection" in repr(task)}
        assert not left


def test_a_password_is_not_shown() -> None:
    async def shown() -> str:
        [node] = node_urls("amqp://u:secret@one:1/")
        return str(connection_class([node])(node))

    assert "secret" not in asyncio.run(shown())
