"""The wire format: CloudEvents 1.0 in structured JSON; any bytes are an envelope or refused."""

from __future__ import annotations

import json
import string
from base64 import b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.consuming import Handler
from shared.envelope import EVENT_BYTES_MAX, Envelope, schema_uri
from shared.errors import EventTooLargeError, SchemaViolationError, UndecodableError
from shared.event import EventData

MINIMAL: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "thing.happened"}
ATTRIBUTES = ("subject", "time", "dataschema", "partitionkey", "traceparent", "correlationid", "causationid")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)
attribute_values = st.one_of(json_values, st.text(min_size=1, max_size=300), st.just("1.0"))


def decoded_or_refused(body: bytes) -> Envelope | None:
    try:
        return Envelope.decode(body)
    except UndecodableError:
        return None


@given(st.binary())
def test_any_bytes_are_an_envelope_or_undecodable(body: bytes) -> None:
    decoded_or_refused(body)


@given(json_values)
def test_any_json_is_an_envelope_or_undecodable(document: Any) -> None:
    decoded_or_refused(orjson.dumps(document))


nearly_envelopes = st.dictionaries(
    st.sampled_from([*MINIMAL, *ATTRIBUTES, "data", "data_base64", "datacontenttype", "x"]), attribute_values
)


@given(nearly_envelopes)
def test_an_unknown_attribute_changes_nothing_of_what_is_read(attributes: dict[str, Any]) -> None:
    """With one, an envelope is read another way than without."""
    document = {**MINIMAL, **attributes}
    plain, extended = (orjson.dumps(body) for body in (document, {**document, "unknown": 1}))
    assert decoded_or_refused(plain) == decoded_or_refused(extended)


@pytest.mark.parametrize("unknown", [{}, {"unknown": 1}])
def test_a_number_of_any_size_is_read_exactly(unknown: dict[str, int]) -> None:
    body = json.dumps({**MINIMAL, **unknown, "data": 10**30 + 1}).encode()
    assert Envelope.decode(body).data == 10**30 + 1


@given(nearly_envelopes)
def test_what_is_nearly_an_envelope_is_one_or_undecodable(attributes: dict[str, Any]) -> None:
    envelope = decoded_or_refused(orjson.dumps({**MINIMAL, **attributes}))
    if envelope is not None:
        assert all(0 < len(value) <= 255 for value in (envelope.id, envelope.source, envelope.type))
        texts = [getattr(envelope, name) for name in ("id", "source", "type", *ATTRIBUTES)]
        assert all(text is None or (isinstance(text, str) and "\x00" not in text) for text in texts)


plain = st.text(string.printable + "äöü漢字🦊", min_size=1, max_size=50)


@given(
    st.builds(
        Envelope,
        id=plain,
        source=plain,
        type=plain,
        data=json_values,
        subject=st.none() | plain,
        partitionkey=st.none() | plain,
        traceparent=st.none() | plain,
        correlationid=st.none() | plain,
        causationid=st.none() | plain,
    )
)
def test_decoding_gives_back_what_was_encoded(envelope: Envelope) -> None:
    assert Envelope.decode(envelope.encode()) == envelope


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        "text",
        {**MINIMAL, "specversion": "0.3"},
        {**MINIMAL, "specversion": 1.0},
        {key: value for key, value in MINIMAL.items() if key != "id"},
        {**MINIMAL, "id": ""},
        {**MINIMAL, "id": "x" * 256},
        {**MINIMAL, "id": 1},
        {**MINIMAL, "source": None},
        {**MINIMAL, "type": ["thing.happened"]},
        {**MINIMAL, "id": "a\x00"},
        {**MINIMAL, "subject": 7},
        {**MINIMAL, "subject": "a\x00"},
        {**MINIMAL, "traceparent": {"not": "text"}},
        {**MINIMAL, "partitionkey": 1.5},
        {**MINIMAL, "correlationid": ["a"]},
        {**MINIMAL, "time": 1_790_000_000},
        {**MINIMAL, "data": {}, "data_base64": "e30="},
        {**MINIMAL, "data_base64": {}},
        {**MINIMAL, "data_base64": ""},
        {**MINIMAL, "data_base64": "e30"},
        {**MINIMAL, "data_base64": "e30=\n"},
        {**MINIMAL, "data_base64": "e3-_"},
        {**MINIMAL, "data_base64": "é"},
        {**MINIMAL, "data_base64": "bm8gSlNPTg=="},
        {**MINIMAL, "data_base64": "e30=", "datacontenttype": 5},
        {**MINIMAL, "data_base64": b64encode(b"[" * 100_000).decode()},
        {**MINIMAL, "data_base64": b64encode(b"\xef\xbb\xbf{}").decode()},
    ],
)
def test_what_is_no_cloudevent_is_undecodable(document: Any) -> None:
    with pytest.raises(UndecodableError):
        Envelope.decode(orjson.dumps(document))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"NaN", b'{"id": "\\ud800"}', b"[" * 200_000, b'{"a":' * 5_000]
)
def test_what_is_no_json_is_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableError, match="not JSON"):
        Envelope.decode(body)


def test_a_byte_order_mark_is_refused_by_its_name() -> None:
    """RFC 8259, 8.1: a reader may ignore it or refuse it."""
    with pytest.raises(UndecodableError, match="byte order mark"):
        Envelope.decode(b"\xef\xbb\xbf" + orjson.dumps(MINIMAL))


JSON_VALUE = {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True}


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "text/json",
        "application/vnd.x+json",
        "application/JSON; charset=utf-8",
        None,
        "",
        "/json",
    ],
)
@pytest.mark.parametrize("data", [JSON_VALUE, [], "text", 5, None, True, {"ü": "漢字"}])
def test_data_in_base64_is_the_same_data(data: Any, media_type: str | None) -> None:
    """CloudEvents' JSON format 1.0.2, 3.1 and 3.1.1, of whose examples these are variants."""
    encoded = {"data_base64": b64encode(orjson.dumps(data)).decode(), "data": None}
    envelope = Envelope.decode(orjson.dumps({**MINIMAL, "datacontenttype": media_type, **encoded}))
    assert envelope.data == data
    assert envelope == Envelope.decode(orjson.dumps({**MINIMAL, "data": data}))


@pytest.mark.parametrize("media_type", ["application/xml", "text/plain", "application/octet-stream", "json"])
@pytest.mark.parametrize("data", [b"", b"{}", b"\x00\xff", b'<much wow="xml"/>'])
def test_data_of_another_type_stays_bytes(data: bytes, media_type: str) -> None:
    """The event can be read, so who ignores its type ignores it; who does not says what is wrong with it."""
    members = {"datacontenttype": media_type, "data_base64": b64encode(data).decode()}
    envelope = Envelope.decode(orjson.dumps({**MINIMAL, **members}))
    assert envelope.data == data
    with pytest.raises(SchemaViolationError, match="datacontenttype"):
        Handler(Something, handle).read(envelope)


class Something(EventData):
    event_type = "thing.happened"


async def handle(event: Any, uow: Any) -> None:
    """Reading comes first, and is all that is tried."""


@pytest.mark.parametrize(("sent", "read"), [(7, "7"), (-(2**31), "-2147483648"), (True, "true"), (False, "false")])
@pytest.mark.parametrize("name", ["partitionkey", "traceparent", "correlationid", "causationid", "future"])
def test_extension_attributes_may_be_numbers_and_booleans(name: str, sent: Any, read: str) -> None:
    """CloudEvents 1.0.2, type system: their text is that of JSON; the JSON format has them as they are (2.2)."""
    envelope = Envelope.decode(orjson.dumps({**MINIMAL, name: sent}))
    assert getattr(envelope, name, read) == read


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59.999999999-23:59", "2026-11-25T12:00:00",
        "2026-11-25T23:59:60Z", "1990-12-31T15:59:60-08:00", "-0001-01-01T00:00:00Z", "+275760-09-13T00:00:00Z",
        "2026-02-30T00:00:00Z", "12:00", "", None,
    ],
)  # fmt: skip
def test_a_time_at_the_edge_of_every_type_or_none_at_all_is_data(time: str | None) -> None:
    """It says when somebody else believes to have made the event; nothing is decided by it."""
    assert Envelope.decode(orjson.dumps({**MINIMAL, "time": time})).time == time


@pytest.mark.parametrize("name", [*ATTRIBUTES, "datacontenttype", "data", "data_base64", "unset"])
def test_what_is_null_is_absent(name: str) -> None:
    """JSON format 1.0.2, 2.2: an unset attribute may be null."""
    envelope = Envelope.decode(orjson.dumps({**MINIMAL, name: None}))
    assert envelope == Envelope.decode(orjson.dumps(MINIMAL))


def test_unknown_attributes_are_tolerated_and_dropped() -> None:
    body = orjson.dumps({**MINIMAL, "future": {"attribute": 1}, "datacontenttype": "application/json", "data": 5})
    assert Envelope.decode(body).data == 5


def test_a_minimal_event_has_no_more_than_it_says() -> None:
    envelope = Envelope.decode(orjson.dumps(MINIMAL))
    assert [getattr(envelope, name) for name in ATTRIBUTES] == [None] * len(ATTRIBUTES)
    assert envelope.data is None


def test_the_wire_form_is_structured_cloudevents_json() -> None:
    envelope = Envelope(
        source="/services/order",
        type="order.placed",
        subject="7",
        dataschema=schema_uri("order.placed", 2),
        data={},
    )
    document = orjson.loads(envelope.encode())
    assert document["specversion"] == "1.0"
    assert document["datacontenttype"] == "application/json"
    assert document["dataschema"] == "urn:tandem:order.placed:2"
    assert document["time"].endswith("+00:00")
    assert "partitionkey" not in document, "an attribute without a value is absent, as the specification asks"


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [Envelope(source="s", type="t", data=None).id for _ in range(100)]
    assert len(set(ids)) == 100
    assert ids == sorted(ids)


def test_an_event_may_have_a_megabyte_and_not_a_byte_more() -> None:
    def event(data: str) -> Envelope:
        return Envelope(id="1", source="s", type="t", time=None, data=data)

    overhead = len(event("").encode())
    largest = event("x" * (EVENT_BYTES_MAX - overhead))
    assert Envelope.decode(largest.encode()) == largest
    with pytest.raises(EventTooLargeError):
        event("x" * (EVENT_BYTES_MAX - overhead + 1)).encode()
    with pytest.raises(UndecodableError, match="bytes"):
        Envelope.decode(largest.encode() + b" ")


@pytest.mark.parametrize(
    ("attributes", "key"),
    [
        ({}, "1"),
        ({"subject": "s"}, "s"),
        ({"subject": "s", "partitionkey": "p"}, "p"),
        ({"subject": "", "partitionkey": ""}, "1"),
    ],
)
def test_the_key_is_the_partition_key_else_the_subject_else_the_id(attributes: dict[str, str], key: str) -> None:
    assert Envelope.decode(orjson.dumps({**MINIMAL, **attributes})).key == key
