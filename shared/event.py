"""Events as services see them: the data model that a service publishes or accepts, and one received event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict

from shared.envelope import Envelope, schema_uri


class EventData(BaseModel):
    """The base of every event's data. A subclass says which event it is:

        class OrderPlaced(EventData):
            channel = "order"
            event_type = "order.placed"
            schema_version = 1

    Unknown fields are ignored, so that a producer may add some (tolerant reader).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    channel: ClassVar[str]
    event_type: ClassVar[str]
    schema_version: ClassVar[int] = 1
    told_directly: ClassVar[bool] = False
    """Whether the consumers of the service that publishes it may hear of it from their database, too, and sooner:
    for what a service publishes to itself, in an order that matters to nobody (ADR 19)."""

    @classmethod
    def schema_uri(cls) -> str:
        """The `dataschema` attribute of such an event."""
        return schema_uri(cls.event_type, cls.schema_version)


DataT = TypeVar("DataT", bound=EventData)


@dataclass(frozen=True, slots=True)
class Asked:
    """That somebody waits for the answer to a message."""

    reply_to: str
    """Where the answer goes, in the broker's own words."""
    correlation_id: str
    """By which the requester tells its answers apart."""
    begin_by_s: float
    """The moment, as `time.monotonic()` of this process, after which it must not be begun any more."""


class Event(msgspec.Struct, Generic[DataT], frozen=True, gc=False):
    """One received event: its envelope, and its data checked against the subscriber's own model.

    A struct, since one is made for each.
    """

    envelope: Envelope
    data: DataT
    asked: Asked | None = None
    """Who waits for an answer to it, if somebody does."""

    @property
    def id(self) -> str:
        """The envelope's id; with the source it tells events apart."""
        return self.envelope.id
