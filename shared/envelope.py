"""CloudEvents 1.0 envelope in structured JSON mode: the same bytes on every broker.

Source: CloudEvents specification 1.0.2 and its JSON format; the extension attributes are `partitionkey`
(partitioning extension), `traceparent` (distributed tracing extension), `correlationid` and `causationid`.
"""

from __future__ import annotations

from base64 import b64decode
from functools import lru_cache
from time import gmtime, strftime, time_ns
from typing import Annotated, Any, Literal

import msgspec
import orjson
from uuid_utils import uuid7

from shared.errors import EventTooLargeError, UndecodableError

CONTENT_TYPE = "application/cloudevents+json"
EVENT_BYTES_MAX = 1_000_000
"""Largest encoded event in bytes: under the default limits of both brokers (Kafka 1,048,588; RabbitMQ 16 MiB)."""

_REQUIRED = ("id", "source", "type")
_EXTENSIONS = ("partitionkey", "traceparent", "correlationid", "causationid")
_OPTIONAL = ("subject", "time", "dataschema", *_EXTENSIONS)
_ID_LENGTH_MAX = 255

_NOT_JSON = (msgspec.DecodeError, ValueError, RecursionError)
_NUL = b"\\u0000"
_BACKSLASH = _NUL[0]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_ID_LENGTH_MAX)]


@lru_cache(maxsize=1_024)
def schema_uri(event_type: str, version: int) -> str:
    """The `dataschema` of version `version` of an event type, a URN (RFC 8141 syntax)."""
    return f"urn:tandem:{event_type}:{version}"


def time_now() -> str:
    """The `time` of an event that happens now (RFC 3339)."""
    second, microsecond = divmod(time_ns() // 1_000, 1_000_000)
    return f"{_up_to_the_second(second)}.{microsecond:06}+00:00"


@lru_cache(maxsize=1)
def _up_to_the_second(since_1970_s: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(since_1970_s))


def encoded(
    *,
    event_id: str,
    source: str,
    event_type: str,
    subject: str | None,
    time: str | None,
    dataschema: str | None,
    partitionkey: str | None,
    traceparent: str | None,
    correlationid: str | None,
    causationid: str | None,
    data: Any,
) -> bytes:
    """The wire bytes of an event; data that is JSON already is an `orjson.Fragment`. Raises `EventTooLargeError`
    over `EVENT_BYTES_MAX` bytes."""
    document: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": event_type,
        "datacontenttype": "application/json",
    }
    if subject is not None:
        document["subject"] = subject
    if time is not None:
        document["time"] = time
    if dataschema is not None:
        document["dataschema"] = dataschema
    if partitionkey is not None:
        document["partitionkey"] = partitionkey
    if traceparent is not None:
        document["traceparent"] = traceparent
    if correlationid is not None:
        document["correlationid"] = correlationid
    if causationid is not None:
        document["causationid"] = causationid
    document["data"] = data
    body = orjson.dumps(document)
    if len(body) > EVENT_BYTES_MAX:
        raise EventTooLargeError(f"event {event_type} has {len(body)} bytes, over the {EVENT_BYTES_MAX} allowed")
    return body


class Envelope(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One event. Two envelopes with equal `source` and `id` are the same event, whatever else differs.

    A struct, so that what is received is parsed straight into one.
    """

    source: str
    type: str
    data: Any
    """JSON; bytes where a received event has data of another media type."""
    subject: str | None = None
    dataschema: str | None = None
    partitionkey: str | None = None
    traceparent: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    id: str = msgspec.field(default_factory=lambda: str(uuid7()))
    time: str | None = msgspec.field(default_factory=time_now)

    def __eq__(self, other: object) -> bool:
        """All that is said is the same, whether it was received or not."""
        if not isinstance(other, Envelope):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Envelope.__struct_fields__)

    def __hash__(self) -> int:
        return hash((self.source, self.id))

    @property
    def identity(self) -> str:
        """`source` and `id` in one string; the length keeps apart what differs only in where `source` ends."""
        return f"{len(self.source)}:{self.source}:{self.id}"

    def encode(self) -> bytes:
        """Return the wire bytes. Raises `EventTooLargeError` over `EVENT_BYTES_MAX` bytes."""
        return encoded(
            event_id=self.id,
            source=self.source,
            event_type=self.type,
            subject=self.subject,
            time=self.time,
            dataschema=self.dataschema,
            partitionkey=self.partitionkey,
            traceparent=self.traceparent,
            correlationid=self.correlationid,
            causationid=self.causationid,
            data=self.data,
        )

    @staticmethod
    def decode(body: bytes) -> Envelope:
        """Read wire bytes; unknown attributes are tolerated and dropped, and null is as good as absent.

        Raises `UndecodableError` when the bytes are not JSON, not CloudEvents 1.0, or too many.
        """
        if len(body) > EVENT_BYTES_MAX:
            raise UndecodableError(f"{len(body)} bytes, over the {EVENT_BYTES_MAX} that an event may have")
        try:
            # Without a backslash there is no NUL either; one byte is looked for in a tenth of the time of six.
            return _read_closely(body) if _BACKSLASH in body and _NUL in body else _read_plain(body)
        except msgspec.ValidationError:
            return _read_closely(body)
        except _NOT_JSON as error:
            raise _not_json(body, error) from None

    @property
    def key(self) -> str:
        """Events with equal keys keep their order: the partition key, else the subject, else the id."""
        return self.partitionkey or self.subject or self.id


class _Received(Envelope, frozen=True, kw_only=True, eq=False, gc=False, forbid_unknown_fields=True):
    """An envelope as nearly all are, checked while it is parsed; what is not like this is looked at closely."""

    specversion: Literal["1.0"]
    id: _Name
    source: _Name
    type: _Name
    datacontenttype: str | None = None
    time: str | None = None
    data: Any = None


_read_plain = msgspec.json.Decoder(_Received).decode
_read_any = msgspec.json.Decoder().decode


def _read_closely(body: bytes) -> _Received:
    """What `_Received` does not say: unknown attributes, numbers for strings, null, data in base64. Raises
    `UndecodableError`."""
    try:
        document = _read_any(body)
    except _NOT_JSON as error:
        raise _not_json(body, error) from None
    if not isinstance(document, dict) or document.get("specversion") != "1.0":
        raise UndecodableError("not a CloudEvents 1.0 envelope")
    for name in _REQUIRED:
        value = document.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= _ID_LENGTH_MAX:
            raise UndecodableError(f"attribute {name} must be a string of 1 to {_ID_LENGTH_MAX} characters")
        if "\x00" in value:
            raise UndecodableError(f"attribute {name} holds a NUL character")
    attributes: dict[str, Any] = {name: document[name] for name in _REQUIRED}
    for name in _OPTIONAL:
        value = document.get(name)
        if value is None:
            continue
        if name in _EXTENSIONS and isinstance(value, int):
            value = str(value).lower() if isinstance(value, bool) else str(value)
        elif not isinstance(value, str) or "\x00" in value:
            raise UndecodableError(f"attribute {name} must be a string without NUL characters")
        attributes[name] = value
    data = document.get("data") if document.get("data_base64") is None else _data_in_base64(document)
    return _Received(specversion="1.0", data=data, **attributes)


def _not_json(body: bytes, error: Exception) -> UndecodableError:
    return UndecodableError(f"not JSON: {_in_known_words(body, error)}")


def _in_known_words(text: bytes, error: Exception) -> Exception:
    """What orjson says of it, which read events before: open groups of dead letters are known by these words."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as known:
        return known
    return error


def _data_in_base64(document: dict[str, Any]) -> Any:
    """The data of the member `data_base64` (JSON format, 3.1.1): as JSON where that is what it is said to be, or
    where nothing is said (3.1), else as bytes. Raises `UndecodableError`."""
    if document.get("data") is not None:
        raise UndecodableError("data and data_base64 exclude each other")
    encoded, media_type = document["data_base64"], document.get("datacontenttype") or "application/json"
    if not isinstance(encoded, str) or not isinstance(media_type, str):
        raise UndecodableError("data_base64 and datacontenttype must be strings")
    try:
        data = b64decode(encoded, validate=True)
    except ValueError:
        raise UndecodableError("data_base64 is not base64 as in RFC 4648, 4") from None
    if not media_type.partition(";")[0].strip().lower().endswith(("/json", "+json")):
        return data
    try:
        return _read_any(data)
    except _NOT_JSON as error:
        raise UndecodableError(f"data_base64 is not JSON: {_in_known_words(data, error)}") from None
