"""The life of a service's process: its roles run beside its HTTP, and stop in good order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from shared.errors import ConfigurationError
from shared.process.parts import Parts
from shared.process.probes import Probes
from shared.process.roles import run_roles
from shared.process.service import Service
from shared.setting_names import require_subscriptions

_log = structlog.get_logger(__name__)

FAILED = 1
REFUSED = 78
"""EX_CONFIG of sysexits.h: a setting is wrong, by itself or for a server; starting again will not help."""
GOODBYES_S = 5.0
"""Seconds to disconnect, after the grace period of what is in flight."""


class Process:
    """One running process of a service."""

    def __init__(self, service: Service, parts: Parts) -> None:
        self.service = service
        self.parts = parts
        parts.units.submitter = service.jobs
        self.exit_code = 0
        """Other than 0 once a role has raised and `stop` has been called: `FAILED` or `REFUSED`."""
        self.stop: Callable[[], None] = lambda: None
        """How to stop the HTTP server, which stops the rest; whoever serves this process says it."""
        self._subscribers = (*service.subscribers, *service.more_subscribers(parts))
        self._require_own_limits()
        self._connected = asyncio.Event()
        self._stopping = parts.stopping
        self._loop: asyncio.AbstractEventLoop | None = None
        self.probes = Probes(service, parts, self._subscribers, self._connected)

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Connect and start the roles; on leaving, stop them in the reverse order, within the grace period."""
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.parts.close)
            if "api" in self.parts.settings.roles and self.service.publishes:
                # Not one of the roles' tasks: it looks at the outbox while the broker is away, too.
                gate = asyncio.create_task(self.parts.outbox_gate.run(), name="outbox-gate")
                stack.callback(gate.cancel)
            await stack.enter_async_context(self._roles())
            yield

    @asynccontextmanager
    async def _roles(self) -> AsyncIterator[None]:
        """HTTP is served from the start; the broker is connected beside it, as soon as it answers."""
        roles = run_roles(self.service, self.parts, self._subscribers, self._connected)
        task = asyncio.create_task(roles, name="roles")
        task.add_done_callback(self._roles_ended)
        stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
        stopping.add_done_callback(lambda _: task.cancel())  # once: a second time would cut the good-byes short
        try:
            yield
        finally:
            self._stopping.set()
            await asyncio.wait([stopping, task], timeout=self.parts.settings.shutdown_grace_s + GOODBYES_S)
            task.cancel()

    def begin_stop(self) -> None:
        """Stop pulling and publishing, while HTTP still answers what it has begun. May be called by a signal."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    def _require_own_limits(self) -> None:
        """Raises `ConfigurationError` for the limit of a subscription that a subscriber of ours does not have."""
        own = {f"{subscriber.name}.{subscriber.channel}" for subscriber in self._subscribers}
        names = {subscriber.name for subscriber in self._subscribers}
        limited = [queue for queue in self.parts.settings.rate_limit_per_s if queue.partition(".")[0] in names]
        require_subscriptions(limited, own)

    def _roles_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        refusal = _refusal_in(error)
        if refusal is None:
            self.exit_code = FAILED
            _log.critical("process.failed", exc_info=error)
        else:
            self.exit_code = REFUSED
            _log.critical("process.refused", error=str(refusal))
        self.stop()


def _refusal_in(error: BaseException) -> ConfigurationError | None:
    """The one thing that is wrong with the settings, if that is all that happened. Roles run in a task group, and
    what they raise comes out in a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, ConfigurationError) else None
