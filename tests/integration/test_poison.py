"""Messages of foreign clients that no service of ours would send: every one put aside, and the good ones go on."""

from __future__ import annotations

import orjson
import pytest

from shared.dead_letter import ERROR_TYPE
from tests.conformance.servers_seen import publish_amqp, publish_kafka
from tests.integration.world import TYPE, World, happened

BEGIN = b'{"specversion":"1.0","id":"1","source":"/x","type":"thing.happened","data":'
POISON: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"\x00\xff\xfe",
    "nested deeply": b"[" * 200_000,
    "nested deeply in the data": BEGIN + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number beyond every range": BEGIN + b'{"number":' + b"9" * 5_000 + b"}}",
    "a number that PostgreSQL has not": BEGIN + b'{"number":"' + b"9" * 5_000 + b'"}}',
    "no UTF-8": BEGIN + b'"\xff"}',
    "a lone surrogate": BEGIN + b'"\\ud800"}',
    "a NUL in the id": orjson.dumps({**orjson.loads(BEGIN + b"{}}"), "id": "\x00"}),
    "an id without end": orjson.dumps({**orjson.loads(BEGIN + b"{}}"), "id": "x" * 10_000}),
    "data of another kind": BEGIN + b"[1,2,3]}",
    "no data": BEGIN[: -len(b',"data":')] + b"}",
    "another version of the envelope": BEGIN.replace(b"1.0", b"2.0") + b"{}}",
    "many members": orjson.dumps({f"a{number}": number for number in range(50_000)}),
    "half of it": happened(1).encode()[:-20],
}
HEADERS = [("content-type", b"\xff\xfe"), ("tandem-error-type", b"\x00"), ("x" * 200, b"y" * 5_000), ("", b"")]


@pytest.mark.timeout(180)
async def test_what_foreign_clients_may_send_is_put_aside_and_stops_nobody(world: World) -> None:
    await world.publish(happened(0))
    if world.broker_name == "rabbit":
        headers = {name: bytearray(value) for name, value in HEADERS if name}
        for body in POISON.values():
            await publish_amqp(world.runtime, f"{world.channel}.events", TYPE, body, headers)
    else:
        records = [(b"\xff", body, HEADERS) for body in POISON.values()]
        await publish_kafka(world.runtime, f"{world.channel}-events", [*records, (b"\xff", None, ())])
    await world.publish(happened(1))
    expected = len(POISON) + (world.broker_name == "kafka")
    async with world.consumer():
        letters = await world.await_dead_letters(expected)
        assert await world.await_effects(2) == [0, 1]
    assert len(letters) == expected
    assert {letter.headers[ERROR_TYPE] for letter in letters} <= {"UndecodableError", "SchemaViolationError"}
    assert {letter.body for letter in letters} == set(POISON.values())
