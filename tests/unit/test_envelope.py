"""The wire format: CloudEvents 1.0 in structured JSON; any bytes are an envelope or refused."""

from __future__ import annotations

import string
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.envelope import EVENT_BYTES_MAX, Envelope, schema_uri
from shared.errors import EventTooLargeError, UndecodableError

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


@given(st.dictionaries(st.sampled_from([*MINIMAL, *ATTRIBUTES, "data", "x"]), attribute_values))
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
