"""The connection for scripts, against a server that misbehaves in ways that Redis does when it is ill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

from shared.consuming.scripts import Scripts, packed

ONE, TWO = b":1\r\n", b":2\r\n"
ASKED = packed("EVALSHA", "5f", 0, b"a", 7)


def test_a_command_is_packed_as_redis_reads_it() -> None:
    assert ASKED == b"*5\r\n$7\r\nEVALSHA\r\n$2\r\n5f\r\n$1\r\n0\r\n$1\r\na\r\n$1\r\n7\r\n"
    assert packed("ü") == b"*1\r\n$2\r\n\xc3\xbc\r\n"


@pytest.mark.parametrize(
    ("url", "serves"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis://user:secret@redis", True),
        ("redis://redis/0?protocol=3", False),
        ("rediss://redis/0", False),
        ("unix:///run/redis.sock", False),
    ],
)
def test_whatever_is_not_plain_is_left_to_the_client(url: str, serves: bool) -> None:
    assert Scripts.serves(url) is serves


class Server:
    """Answers what it is told, by the number of the connection and of what came by it, in pieces between %. None:
    it hangs up."""

    def __init__(self, answer: Callable[[int, int], bytes | None]) -> None:
        self.answer = answer
        self.connections = 0
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection, place = self.connections, 0
        while heard := await reader.read(65_536):
            self.heard.append(heard)
            for _ in range(heard.count(b"*5\r\n") or 1):
                place += 1
                said = self.answer(connection, place)
                if said is None:
                    writer.close()
                    return
                for piece in said.split(b"%"):
                    writer.write(piece)
                    await asyncio.sleep(0.002 if piece != said else 0)  # so that it is sent by itself
        writer.close()


@asynccontextmanager
async def scripts_of(server: Server, account: str = "", timeout_s: float = 5.0) -> AsyncIterator[Scripts]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1")
    host, port = listening.sockets[0].getsockname()[:2]
    scripts = Scripts(f"redis://{account}{host}:{port}/3" if account else f"redis://{host}:{port}", timeout_s)
    try:
        yield scripts
    finally:
        scripts.close()
        listening.close()
        await listening.wait_closed()


async def test_what_is_asked_at_once_is_answered_in_its_order_whoever_has_stopped_waiting() -> None:
    server = Server(lambda _, place: b":%d\r\n" % place)
    async with scripts_of(server) as scripts:
        assert await scripts.run(ASKED) == 1
        asking = [asyncio.create_task(scripts.run(ASKED)) for _ in range(4)]
        await asyncio.sleep(0)
        asking[1].cancel()
        assert await asyncio.gather(*asking[:1], *asking[2:]) == [2, 4, 5]
    assert server.connections == 1


async def test_an_answer_in_pieces_is_one_answer() -> None:
    server = Server(lambda *_: b"*2\r\n:1\r%\n:%2\r\n")
    async with scripts_of(server) as scripts:
        assert await asyncio.wait_for(scripts.run(ASKED), 5) == [1, 2]


async def test_a_connection_that_ends_is_made_again_and_asked_once_more_and_then_no_more() -> None:
    once = Server(lambda connection, _: None if connection == 1 else ONE)
    async with scripts_of(once) as scripts:
        assert await scripts.run(ASKED) == 1
    always = Server(lambda *_: None)
    async with scripts_of(always) as scripts:
        with pytest.raises(RedisConnectionError):
            await scripts.run(ASKED)
    assert (once.connections, always.connections) == (2, 2)


async def test_a_server_that_says_nothing_in_time_is_left_and_the_next_is_asked_of_another_connection() -> None:
    server = Server(lambda connection, _: b"" if connection == 1 else ONE)
    async with scripts_of(server, timeout_s=0.5) as scripts:
        with pytest.raises(TimeoutError, match="no answer in time"):
            await scripts.run(ASKED)
        assert await scripts.run(ASKED) == 1
    assert (server.connections, len(server.heard)) == (2, 2)


async def test_what_became_a_replica_is_left_and_an_error_of_another_kind_is_only_told() -> None:
    said = {1: b"-OOM command not allowed\r\n", 2: b"-READONLY a replica\r\n"}
    server = Server(lambda connection, place: said[place] if connection == 1 else TWO)
    async with scripts_of(server) as scripts:
        with pytest.raises(ResponseError, match="OOM"):
            await scripts.run(ASKED)
        with pytest.raises(ReadOnlyError, match="a replica"):
            await scripts.run(ASKED)
        assert await scripts.run(ASKED) == 2
    assert server.connections == 2


async def test_a_script_that_the_server_does_not_know_is_told_it_whole() -> None:
    server = Server(lambda _, place: b"-NOSCRIPT no such script\r\n" if place == 1 else ONE)
    async with scripts_of(server) as scripts:
        assert await scripts.register("return 1")(args=(b"a", 7)) == 1
    assert server.heard == [
        packed("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0, b"a", 7),
        packed("EVAL", "return 1", 0, b"a", 7),
    ]


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", ONE + TWO], ids=["no Redis", "one too many"]
)
async def test_what_is_no_answer_ends_the_connection(said: bytes) -> None:
    server = Server(lambda connection, _: said if connection == 1 else TWO)
    async with scripts_of(server) as scripts:
        assert await scripts.run(ASKED) in (1, 2)
        assert await scripts.run(ASKED) == 2
    assert server.connections == 2


@pytest.mark.parametrize(
    ("account", "auth"), [("me:secret@", ("AUTH", "me", "secret")), (":secret@", ("AUTH", "secret"))]
)
async def test_an_account_and_a_database_are_said_first(account: str, auth: tuple[str, ...]) -> None:
    server = Server(lambda _, place: b"+OK\r\n" if place < 3 else ONE)
    async with scripts_of(server, account) as scripts:
        assert await scripts.run(ASKED) == 1
    assert server.heard == [packed(*auth), packed("SELECT", 3), ASKED]


async def test_who_is_refused_hears_it_and_is_asked_again_the_next_time() -> None:
    server = Server(lambda connection, _: b"-WRONGPASS no\r\n" if connection == 1 else ONE)
    async with scripts_of(server, ":wrong@") as scripts:
        with pytest.raises(ResponseError, match="WRONGPASS"):
            await scripts.run(ASKED)
        assert await scripts.run(ASKED) == 1
    assert server.connections == 2
