"""What a stranger may send, as strategies: bodies, headers, keys and times of the field's public bug reports.

Input ── body ── event (good, nearly good) │ JSON │ bytes
      ├─ headers, of AMQP's types or Kafka's; names of ours among them
      └─ key, time, partition, compression, how often
"""

from __future__ import annotations

import datetime
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from reprlib import Repr
from typing import Any

import orjson
from hypothesis import strategies as st

from shared.dead_letter.headers import OWN_HEADERS
from tests.integration.world import TYPE, Happened

FRESH = "to be made"
"""Stands for an id that nobody has used; a strategy cannot make one."""
LARGE = 300_000
PARTITIONS = 3


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxdict = _SHORT.maxtuple = 20


@dataclass(frozen=True, slots=True, repr=False)
class Input:
    """One message of a stranger, sent `times` times in a row."""

    document: Mapping[str, Any] | None
    """Of an event; None where the body is given as bytes."""
    raw: bytes | None
    """The body where there is no document; None is no body at all."""
    before: bytes = b""
    """What stands before the document."""
    cut: int = 0
    """How many bytes its end lacks."""
    headers: tuple[tuple[str, Any], ...] = ()
    properties: Mapping[str, Any] = field(default_factory=dict)
    key: bytes | None = None
    timestamp_ms: int | None = None
    partition: int = 0
    squeezed: bool = False
    times: int = 1

    def __repr__(self) -> str:
        """Short: what is large is so by repetition."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        return f"Input({', '.join(f'{name}={_SHORT.repr(value)}' for name, value in shown.items())})"

    def body(self, fresh_id: str) -> bytes | None:
        """The bytes to send."""
        if self.document is None:
            return self.raw
        document = {name: fresh_id if value == FRESH else value for name, value in self.document.items()}
        whole = self.before + orjson.dumps(document)
        return whole[: len(whole) - self.cut] if self.cut else whole


def bodies() -> st.SearchStrategy[dict[str, Any]]:
    """The first fields of an `Input`."""
    return st.one_of(
        documents().map(lambda document: {"document": document, "raw": None}),
        documents().map(lambda document: {"document": document, "raw": None}),
        st.builds(
            lambda document, before, cut: {"document": document, "raw": None, "before": before, "cut": cut},
            documents(),
            st.sampled_from([b"", b"\xef\xbb\xbf", b" \n", b"\x00", b"\xff\xfe"]),
            st.integers(0, 40),
        ),
        raw_bodies().map(lambda raw: {"document": None, "raw": raw}),
    )


def documents() -> st.SearchStrategy[dict[str, Any]]:
    """Good events, and events in which some members are replaced, added or left out."""
    good = st.builds(
        _good, st.integers(0, 2**31 - 1), encodings(), st.integers(0, 20), st.dictionaries(*extensions())
    )
    return st.one_of(
        good, good, st.builds(_changed, good, changes(), st.sets(st.sampled_from(MEMBERS), max_size=1))
    )


def encodings() -> st.SearchStrategy[str]:
    return st.sampled_from(["data", "data", "data_base64"])


def _good(number: int, encoding: str, padding: int, others: dict[str, Any]) -> dict[str, Any]:
    data = {"number": number, "pad": "x" * (LARGE if padding == 20 else padding)}
    return {
        **others,
        "specversion": "1.0",
        "id": FRESH,
        "source": "/fuzz",
        "type": TYPE,
        "dataschema": Happened.schema_uri(),
        encoding: data if encoding == "data" else b64encode(orjson.dumps(data)).decode(),
    }


MEMBERS = (
    "specversion", "id", "source", "type", "dataschema", "data", "data_base64", "datacontenttype", "subject",
    "time", "partitionkey", "traceparent", "correlationid", "causationid",
)  # fmt: skip
TEXTS = (
    "", "\x00", "1.0", "2.0", TYPE, "thing.ignored", "thing.unheard", "x" * 255, "x" * 256, "漢字🦊", "\u202e",
    "\ufeff", "application/json", "text/plain", "application/xml; charset=latin-1", "e30=", "e30",
    "eyJudW1iZXIiOjF9", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:60-23:59", "2026-02-30T00:00:00", "-2",
    "1e999", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
    "00-" + "0" * 32 + "-" + "0" * 16 + "-00",
    "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-x", "a@b, <c@d>\r\nBcc: e@f",
)  # fmt: skip


def values() -> st.SearchStrategy[Any]:
    """Anything that a member may be: types at their edges, and text that means something somewhere."""
    numbers = st.sampled_from([0, 1, -2, 2**31 - 1, 2**31, 2**53 + 1, -(2**63), 2**64 - 1, 1.5, -0.0, 1e308])
    simple = st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(TEXTS), st.text(max_size=20))
    return st.recursive(
        simple,
        lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
        max_leaves=6,
    )


def changes() -> st.SearchStrategy[dict[str, Any]]:
    data = st.fixed_dictionaries({"number": st.one_of(values(), st.sampled_from(["7", "x", 2**31, 2**40, 7.0]))})
    member = st.dictionaries(st.sampled_from(MEMBERS), values(), max_size=2)
    return st.one_of(member, data.map(lambda given: {"data": given}))


def _changed(document: dict[str, Any], changed: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    return {name: value for name, value in {**document, **changed}.items() if name not in left_out}


def extensions() -> tuple[st.SearchStrategy[str], st.SearchStrategy[Any]]:
    """Attributes with which an event stays a good one."""
    text = st.sampled_from([text for text in TEXTS if "\x00" not in text])
    return st.sampled_from(["time", "traceparent", "correlationid", "causationid", "future"]), text


def raw_bodies() -> st.SearchStrategy[bytes | None]:
    return st.one_of(
        st.none(),
        st.binary(max_size=200),
        values().map(orjson.dumps),
        st.sampled_from([b"[", b'{"a":', b"1"]).map(lambda part: part * 20_000),
        st.sampled_from([b"NaN", b'"\\ud800"', b"\x1f\x8b\x08\x00"]),
        st.integers(1_000_001, 1_040_000).map(lambda size: b'"' + b"x" * (size - 2) + b'"'),
    )


NAMES = (*sorted(OWN_HEADERS), "content-type", "type", "x-death", "x-delivery-count", "CC", "x" * 200, "ü", "")
HEADER_TEXTS = (
    "", "x", "-1", "1", "999999999", "failed", "delayed", "receipt", "nobody", "1e999", "ü",
    "0001-01-01T00:00:00+02:00", "7b1c2f0e-0000-5000-8000-000000000001",
)  # fmt: skip


def header_texts() -> st.SearchStrategy[str]:
    """Text that means something in one of our headers, and text that fills a frame."""
    return st.one_of(st.sampled_from(HEADER_TEXTS), st.sampled_from([9_000, 100_000]).map("x".__mul__))


def amqp_headers() -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    simple = st.one_of(
        st.sampled_from(HEADER_TEXTS), st.booleans(), st.none(), st.integers(-(2**31), 2**31 - 1),
        st.sampled_from([bytearray(b"\xff\xfe"), now, Decimal("1.5"), 2.5, bytearray(b"")]),
    )  # fmt: skip
    nested = st.one_of(
        st.lists(simple, max_size=3), st.dictionaries(st.text("abc", max_size=3), simple, max_size=3)
    )
    names = st.sampled_from([name for name in NAMES if name not in {"", "CC"}])
    value = st.one_of(simple, simple, nested)
    many = st.dictionaries(names, value, max_size=4).map(lambda found: tuple(found.items()))
    return st.one_of(many, many, st.tuples(st.tuples(names, header_texts())))


def amqp_properties() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "content_type": st.sampled_from(["", "application/cloudevents+json", "x" * 255]),
            "content_encoding": st.sampled_from(["gzip", ""]),
            "priority": st.sampled_from([0, 9, 255]),
            "delivery_mode": st.sampled_from([1, 2]),
            "correlation_id": st.sampled_from(["", "x" * 255]),
            "message_id": st.sampled_from(["", "m"]),
            "expiration": st.just("600000"),
            "app_id": st.just("ü"),
        },
    )


def kafka_headers() -> st.SearchStrategy[tuple[tuple[str, bytes | None], ...]]:
    texts = header_texts().map(str.encode)
    value = st.one_of(st.none(), st.binary(max_size=20), texts)
    return st.lists(st.tuples(st.sampled_from(NAMES), value), max_size=4).map(tuple)


def inputs(broker: str) -> st.SearchStrategy[Input]:
    """One message for this broker."""
    rabbit = broker == "rabbit"
    placed = {
        "headers": amqp_headers() if rabbit else kafka_headers(),
        "properties": amqp_properties() if rabbit else st.just({}),
        "key": st.one_of(st.sampled_from([None, b"", b"k", b"\xff\xfe"]), st.just(70_000).map(b"k".__mul__)),
        "timestamp_ms": st.sampled_from([None, 0, 1, 4_102_444_800_000, 2**62]),
        "partition": st.integers(0, PARTITIONS - 1),
        "squeezed": st.booleans(),
        "times": st.sampled_from([1, 1, 1, 1, 2, 3]),
    }
    return st.builds(lambda body, place: Input(**body, **place), bodies(), st.fixed_dictionaries(placed))
