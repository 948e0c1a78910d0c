"""What a service is to the rest of the system: its name, its events, and what its processes do besides."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from shared.broker import Operation
from shared.consuming import Subscriber
from shared.event import EventData
from shared.process.parts import Parts
from shared.publishing import Submitter

BackgroundTask = Callable[[Parts], Coroutine[Any, Any, None]]
"""What a process does all the time besides its subscriptions; cancelled when it stops. What it raises stops it."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service's composition, as its `app.py` writes it down."""

    name: str
    publishes: tuple[type[EventData], ...] = ()
    subscribers: tuple[Subscriber, ...] = ()
    background_tasks: tuple[BackgroundTask, ...] = ()
    """What a process with the role `consumer` runs besides, from when the broker is connected until it stops."""
    more_subscribers: Callable[[Parts], tuple[Subscriber, ...]] = lambda _parts: ()
    """Those that depend on the settings, or need something that is built from them."""
    workers: tuple[BackgroundTask, ...] = ()
    """What a process with the role `worker` runs: what takes this service's leased steps."""
    jobs: Submitter | None = None
    """Its jobs, where it has some: what `uow.submit` writes down."""
    application: str | None = None
    """Where its HTTP is built, as `package.module:function`, a function from `Parts` to a Starlette application.
    Only a process with the role `api` imports it; without one, that role serves the probes alone."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that it publishes on."""
        return tuple(sorted({event.channel for event in self.publishes}))

    def operations(self, subscribers: Sequence[Subscriber]) -> list[Operation]:
        """Its lines of the AsyncAPI document, with these subscribers."""
        published = [Operation(event.channel, event.event_type, event) for event in self.publishes]
        consumed = [
            Operation(subscriber.channel, handler.model.event_type, handler.model, subscriber.name)
            for subscriber in subscribers
            for handler in subscriber.handlers
        ]
        return published + consumed
