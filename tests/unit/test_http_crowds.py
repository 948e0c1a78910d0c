"""More HTTP connections than a server takes: who is answered, who makes way, and who is told to come again."""

from __future__ import annotations

import asyncio
import resource

import pytest

from shared.process.connections import connections_max
from tests.unit.test_http_connections import PATIENCE_S, POST, problem, serving, until


async def test_a_new_connection_takes_the_place_of_the_one_that_waits_the_longest() -> None:
    async with serving(connections_max=4) as (served, connect):
        kept, worked_on = await connect(), await connect()
        halves = []
        await worked_on.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(20):
            half = await connect()
            await half.send(b"POST /orders HTTP/1.1\r\nHost: x\r\n")
            halves.append(half)
            await kept.send(POST + b"Content-Length: 3\r\n\r\n[1]")
            assert await kept.answer() == (200, b"[1]")
            await until(lambda: served.count <= 4)
        assert all([await half.ended() for half in halves[:-2]])
        served.release.set()
        assert await worked_on.answer() == (200, b"at last")


async def test_where_all_are_worked_on_one_more_is_sent_away() -> None:
    async with serving(connections_max=2) as (served, connect):
        clients = [await connect() for _ in range(2)]
        for client in clients:
            await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: len(served.server.server_state.tasks) == 2)
        assert problem(await (await connect()).answer()) == 503
        served.release.set()
        assert [await client.answer() for client in clients] == [(200, b"at last")] * 2
        late = await connect()
        await late.send(POST + b"Content-Length: 3\r\n\r\n[1]")
        assert await late.answer() == (200, b"[1]")


async def test_of_a_crowd_that_connects_before_anyone_asks_each_is_answered_or_told_when_to_come_again() -> None:
    async with serving(connections_max=4) as (served, connect):
        crowd = [await connect() for _ in range(12)]
        await until(lambda: served.count == 4)
        async with asyncio.timeout(PATIENCE_S):
            heads = [await one.reader.readuntil(b"\r\n\r\n") for one in crowd[:8]]
        assert {head.split()[1] for head in heads} == {b"503"}
        assert all(b"retry-after: 1\r\n" in head for head in heads)
        for one in crowd[8:]:
            await one.send(POST + b"Content-Length: 3\r\n\r\n[1]")
            assert await one.answer() == (200, b"[1]")


def test_connections_leave_half_of_the_descriptors_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for descriptors, count in ((64, 32), (1_024, 512), (1_000_000, 1_000), (resource.RLIM_INFINITY, 1_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _which, soft=descriptors: (soft, soft))
        assert connections_max() == count
