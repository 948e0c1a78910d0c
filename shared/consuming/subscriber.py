"""What a service consumes: its subscribers, and a handler for each event type they take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shared.envelope import Envelope
from shared.errors import SchemaViolationError, UnknownSchemaError
from shared.event import Asked, Event, EventData
from shared.publishing import UnitOfWork

EventHandler = Callable[[Any, UnitOfWork], Awaitable[None]]
"""`async def on_order_placed(event: Event[OrderPlaced], uow: UnitOfWork) -> None`"""

Prepare = Callable[[Sequence[Event[Any]], UnitOfWork], Awaitable[None]]
"""Reads in one go what the handlers of a batch's events will want; it may lock it, and sends nothing else."""
PutAside = Callable[[Event[Any], Exception, UnitOfWork], Awaitable[None]]
"""Records that an event has become a dead letter, in a transaction of its own; more than once, it may be."""


@dataclass(frozen=True, slots=True)
class Handler:
    """Which model an event type is read with and who handles it."""

    model: type[EventData]
    handle: EventHandler
    _schema_uri: str = field(init=False, repr=False)
    _validate: Callable[[Any], EventData] = field(init=False, repr=False)
    """As the model's `model_validate`, which looks at its options first: half of the time for a small model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_schema_uri", self.model.schema_uri())
        object.__setattr__(self, "_validate", TypeAdapter(self.model).validator.validate_python)

    def read(self, envelope: Envelope, asked: Asked | None = None) -> Event[Any]:
        """Check the event's data against the model; `asked` is who waits for an answer.

        Raises `UnknownSchemaError` for another schema version, `SchemaViolationError` for bad data. An event
        without `dataschema` is read as the version that this handler knows.
        """
        if envelope.dataschema is not None and envelope.dataschema != self._schema_uri:
            raise UnknownSchemaError(f"{envelope.type} with schema {envelope.dataschema!r}")
        if isinstance(envelope.data, bytes):
            raise SchemaViolationError(f"{envelope.type}: data: its datacontenttype is not JSON's")
        try:
            return Event(envelope, self._validate(envelope.data), asked)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in item['loc']) or 'data'}: {item['msg']}"
                for item in error.errors()[:5]
            )
            raise SchemaViolationError(f"{envelope.type}: {problems}") from None


@dataclass(frozen=True, slots=True)
class Subscriber:
    """What a service consumes of one channel.

    `ignores` are types that it knows of and does not want; any other type without a handler is unknown
    and goes to the dead letters. `transient` are exceptions, besides `TransientError`, that may pass: after the
    short retries the event waits and comes again, where any other exception makes it a dead letter.
    `outside_effects`: the handlers do something outside the database (send a mail), so each event has a
    transaction of its own; `concurrency` of them run at once, those of one key in order. `prepare` runs before the
    handlers of a transaction, `put_aside` behind a dead letter that is confirmed. `answers`: the events are
    requests (`shared.reply`), and the channel is for them alone.
    """

    channel: str
    name: str
    handlers: tuple[Handler, ...]
    ignores: frozenset[str] = frozenset()
    transient: tuple[type[Exception], ...] = ()
    outside_effects: bool = False
    concurrency: int = 1
    prepare: Prepare | None = None
    put_aside: PutAside | None = None
    answers: bool = False

    @property
    def types(self) -> frozenset[str]:
        """The event types that it has handlers for."""
        return frozenset(handler.model.event_type for handler in self.handlers)
