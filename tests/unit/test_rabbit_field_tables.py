"""AMQP's tables of headers: what is read is written again byte by byte, and JSON has room for all of it."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dead_letter.http import HeaderView, SentView
from shared.broker.base import Header
from shared.broker.rabbit.field_tables import read_table, write_table


def counted(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def named(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    names = st.text(max_size=60).map(str.encode).map(lambda name: bytes((len(name),)) + name)
    return st.lists(st.tuples(names, values).map(b"".join), max_size=4).map(b"".join)


FIXED = ((b"b", 1), (b"B", 1), (b"s", 2), (b"u", 2), (b"I", 4), (b"i", 4), (b"l", 8), (b"T", 8))
DECIMALS = st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1))
VALUES = st.recursive(
    st.one_of(
        st.booleans().map(lambda value: b"t" + bytes((value,))),
        *(
            st.binary(min_size=size, max_size=size).map(lambda content, tag=tag: tag + content)  # type: ignore[misc]
            for tag, size in (
                (b"b", 1),
                (b"B", 1),
                (b"s", 2),
                (b"u", 2),
                (b"I", 4),
                (b"i", 4),
                (b"l", 8),
                (b"T", 8),
            )
        ),
        st.floats(width=32, allow_nan=False).map(lambda value: b"f" + struct.pack(">f", value)),
        st.floats(allow_nan=False).map(lambda value: b"d" + struct.pack(">d", value)),
        DECIMALS.map(lambda d: b"D" + struct.pack(">Bi", *d)),
        st.just(b"V"),
        st.text().map(lambda text: b"S" + counted(text.encode())),
        st.binary().map(lambda content: b"S" + counted(content)),
        st.binary().map(lambda content: b"x" + counted(content)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"A" + counted(b"".join(items))),
        named(inner).map(lambda table: b"F" + counted(table)),
    ),
    max_leaves=12,
)


@given(named(VALUES).map(counted))
def test_every_table_is_written_as_it_was_read(raw: bytes) -> None:
    headers = read_table(raw)
    assert headers is not None
    kept = json.loads(json.dumps([[header.name, header.type, header.value] for header in headers]))
    assert write_table(Header(*header) for header in kept) == raw


@given(st.binary(max_size=200))
def test_bytes_that_are_no_table_are_none_or_one_that_can_be_written(raw: bytes) -> None:
    headers = read_table(raw)
    assert headers is None or isinstance(write_table(headers), bytes)


@pytest.mark.parametrize(
    "header", [Header("x" * 256, "text", ""), Header("x", "int128", 1), Header("x", "int8", 1_000)], ids=str
)
def test_what_amqp_has_no_room_for_is_an_error(header: Header) -> None:
    with pytest.raises((ValueError, struct.error)):
        write_table([header])


@pytest.mark.parametrize("tag", [b"A", b"F"])
def test_what_is_nested_deeper_than_json_can_be_shown_is_not_read(tag: bytes) -> None:
    def nested(depth: int) -> bytes:
        value = b"V"
        for _ in range(depth):
            value = tag + counted(value if tag == b"A" else b"\x01n" + value)
        return counted(b"\x01n" + value)

    readable = read_table(nested(100))
    assert readable is not None
    headers = [HeaderView(name=header.name, type=header.type, value=header.value) for header in readable]
    assert SentView(headers=headers, properties={}, key=None, body_is_null=False).model_dump_json()
    assert read_table(nested(101)) is read_table(nested(5_000)) is None
