"""Messages of foreign clients that no service of ours would send: every one put aside, and the good ones go on."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiormq import spec

from shared.broker.unreadable import UNREADABLE
from shared.dead_letter.headers import (
    ERROR_STACK,
    ERROR_TYPE,
    FIRST_FAILED_AT,
    HEADERS_LEFT_OUT,
    LETTER_ID,
    POSITION,
    REDRIVE,
)
from tests.conformance.servers_seen import (
    BadName,
    RawProperties,
    kafka_batch,
    publish_amqp,
    publish_amqp_properties,
    publish_kafka,
    publish_kafka_batches,
)
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


FRAME_FULL = "x" * 130_500
"""A header of the largest frame that RabbitMQ takes; with what we add to a dead letter it is too large."""


@pytest.mark.timeout(180)
async def test_headers_that_fill_a_frame_stop_nobody_whatever_their_names(rabbit_world: World) -> None:
    """Under our own names they would be written on letters and receipts; thousands of short ones leave no room."""
    await rabbit_world.publisher()
    place = rabbit_world.runtime, f"{rabbit_world.channel}.events", TYPE
    worst: list[dict[str, object]] = [
        {name: FRAME_FULL} for name in (FIRST_FAILED_AT, LETTER_ID, REDRIVE, ERROR_STACK, "their-own")
    ]
    worst += [{f"{number:04}": "" for number in range(11_500)}, {f"{number:04}": True for number in range(15_000)}]
    for number, headers in enumerate(worst):
        await publish_amqp(*place, b"no event", headers)
        await publish_amqp(*place, happened(number).encode(), headers)
    async with rabbit_world.consumer():
        assert await rabbit_world.await_effects(len(worst)) == list(range(len(worst)))
        letters = await rabbit_world.await_dead_letters(len(worst))
    assert [letter.body for letter in letters] == [b"no event"] * len(worst)
    assert {HEADERS_LEFT_OUT in letter.headers for letter in letters} == {True}
    assert await rabbit_world.real_numbers() == list(range(len(worst))), "lost or doubled"


@pytest.mark.timeout(180)
async def test_a_header_far_larger_than_a_record_stops_no_partition(kafka_world: World) -> None:
    """Squeezed, it fits a topic; under our own names it would be written on the letter and on the receipt."""
    await kafka_world.publisher()
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_world.settings().kafka_bootstrap, max_request_size=2**26, compression_type="gzip"
    ) as foreign:
        for number, name in enumerate((FIRST_FAILED_AT, LETTER_ID)):
            for body in (b"no event", happened(number).encode()):
                headers = [(name, b"x" * 17_000_000)]
                await foreign.send_and_wait(f"{kafka_world.channel}-events", body, b"k", headers=headers)
    await kafka_world.publish(happened(2))
    async with kafka_world.consumer():
        assert sorted(await kafka_world.await_effects(3)) == [0, 1, 2]
        letters = await kafka_world.await_dead_letters(2)
    assert [(letter.body, letter.headers[HEADERS_LEFT_OUT]) for letter in letters] == [(b"no event", "1")] * 2


def nested(depth: int) -> bytes:
    """A table of headers with one array in another."""
    value = b""
    for _ in range(depth):
        value = b"A" + len(value).to_bytes(4, "big") + value
    table = b"\x04deep" + value
    return len(table).to_bytes(4, "big") + table


PROPERTIES: dict[str, spec.Basic.Properties] = {
    "a content type that does not fit once it is escaped": spec.Basic.Properties(
        headers={"content-type": bytearray(b"\xff" * 64)}
    ),
    "more recipients": spec.Basic.Properties(headers={"CC": ["nobody"], "BCC": ["nobody"]}),
    "a header name that is not UTF-8": spec.Basic.Properties(headers={BadName("name"): "value", "more": "x"}),
    "a header name that does not fit once it is escaped": RawProperties(
        "headers", (69).to_bytes(4, "big") + b"\x40" + b"\xff" * 64 + b"V" + b"\x01aV"
    ),
    "a property that is not UTF-8": spec.Basic.Properties(app_id=BadName("app")),
    "a time that no calendar has": RawProperties("timestamp", b"\x7f" * 8),
    "headers nested deeply": RawProperties("headers", nested(5_000)),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", PROPERTIES)
async def test_properties_of_foreign_clients_stop_nobody(rabbit_world: World, what: str) -> None:
    """Good events take effect whatever is written on them; what is no event gets to the dead letters."""
    properties = PROPERTIES[what]
    messages = [(happened(0).encode(), None), (happened(1).encode(), properties), (b"no event", properties)]
    await rabbit_world.publisher()
    await publish_amqp_properties(
        rabbit_world.runtime,
        f"{rabbit_world.channel}.events",
        TYPE,
        [(body, given or spec.Basic.Properties()) for body, given in [*messages, (happened(2).encode(), None)]],
    )
    async with rabbit_world.consumer():
        assert await rabbit_world.await_effects(3, 20) == [0, 1, 2]
        (letter,) = await rabbit_world.await_dead_letters(1, 20)
    assert letter.body == b"no event"
    assert letter.headers[ERROR_TYPE] == "UndecodableError"


@pytest.mark.timeout(120)
async def test_a_header_name_that_is_not_utf8_costs_no_partition_an_event(kafka_world: World) -> None:
    """aiokafka's consumer fails the whole poll for one, and had moved past what it took from other partitions."""
    await kafka_world.publisher()
    bad_name = [(BadName("name"), b"value")]
    event = iter(range(1_000))

    def good(*headers: tuple[str, bytes]) -> tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]:
        number = next(event)
        return b"k", happened(number, key=f"k{number}").encode(), headers

    batches = []
    for _ in range(3):
        batches += [(partition, kafka_batch([good(), good(), good()])) for partition in range(3)]
        batches += [(0, kafka_batch([good(), (b"k", b"no event", bad_name), good(*bad_name), good()]))]
    batches += [(partition, kafka_batch([good()])) for partition in range(3)]
    await publish_kafka_batches(kafka_world.runtime, f"{kafka_world.channel}-events", batches)
    count = next(event)
    async with kafka_world.consumer(batch_max=10):
        assert sorted(await kafka_world.await_effects(count)) == list(range(count))
        letters = await kafka_world.await_dead_letters(3)
    assert [letter.body for letter in letters] == [b"no event"] * 3
    assert {letter.headers["\\xff\\xfename"] for letter in letters} == {"value"}
    async with kafka_world.consumer():  # nothing was left uncommitted
        await kafka_world.drained()
    assert sorted(await kafka_world.real_numbers()) == list(range(count))


@pytest.mark.timeout(180)
async def test_a_batch_damaged_on_the_brokers_disk_is_put_aside_whole_and_stops_nobody(kafka_world: World) -> None:
    topic, runtime = f"{kafka_world.channel}-events", kafka_world.runtime
    await kafka_world.publisher()
    lost = happened(99).encode()
    batches = [(partition, kafka_batch([(b"k", happened(partition).encode(), ())])) for partition in range(3)]
    batches += [(0, kafka_batch([(b"k", lost, ()), (b"k", b"more of it", ())]))]
    batches += [(partition, kafka_batch([(b"k", happened(3 + partition).encode(), ())])) for partition in range(3)]
    await publish_kafka_batches(runtime, topic, batches)
    (segment,) = (runtime.site.data("kafka")).rglob(f"{topic}-0/00000000000000000000.log")
    await asyncio.to_thread(runtime.processes.stop, "kafka")
    try:
        assert segment.read_bytes().count(lost) == 1
        segment.write_bytes(segment.read_bytes().replace(lost, lost.swapcase()))
    finally:
        await asyncio.to_thread(runtime.processes.start, "kafka")
    async with kafka_world.consumer():
        assert sorted(await kafka_world.await_effects(6)) == list(range(6))
        (letter,) = await kafka_world.await_dead_letters(1)
    assert lost.swapcase() in letter.body
    assert b"more of it" in letter.body
    assert "offsets 1 to 2" in letter.headers[UNREADABLE]
    assert letter.headers[POSITION] == f"{topic}/0@2"
