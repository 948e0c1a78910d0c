"""Batches on their way through a handler, as both adapters see them: taken up ahead, failing, failing apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeVar

import structlog

from shared.broker.base import (
    BatchHandler,
    Delivery,
    Prepared,
    PreparingHandler,
    Settlement,
    Subscription,
)
from shared.errors import TransientError

_log = structlog.get_logger(__name__)


def takes_ahead(handler: BatchHandler, subscription: Subscription, count: int) -> bool:
    """Whether to take up the next batch while `handler` works on one of `count` deliveries.

    Only behind a full one. Where less is waiting, what is to come joins the next batch until that one begins, and
    has its effect as early; two batches would share it and cost twice.
    """
    full = count >= subscription.batch_max
    return subscription.room_for_two and full and isinstance(handler, PreparingHandler)


class BatchInHand:
    """A batch and its handler. Whatever that raises is logged and answered as `RETRY` for the whole batch."""

    def __init__(self, handler: BatchHandler, deliveries: Sequence[Delivery]) -> None:
        self._handler = handler
        self._deliveries = deliveries
        self._prepared: Prepared | None = None
        self._failed = False

    async def prepare(self) -> None:
        """Take it up, unless it is, if the handler is one that prepares; else `run` does all of it."""
        if self._prepared is None and not self._failed and isinstance(self._handler, PreparingHandler):
            try:
                self._prepared = await self._handler.prepare(self._deliveries)
            except Exception:  # noqa: BLE001 - the seam's last line, as below
                self._tell()

    async def run(self) -> Sequence[Settlement]:
        """The handler's settlements, one for each delivery."""
        if self._failed:
            return [Settlement.RETRY] * len(self._deliveries)
        try:
            work = self._handler(self._deliveries) if self._prepared is None else self._prepared.run()
            settlements = await work
            if len(settlements) != len(self._deliveries):
                raise ValueError(  # noqa: TRY301
                    f"{len(settlements)} settlements for {len(self._deliveries)} deliveries"
                )
        except Exception:  # noqa: BLE001 - the seam's last line: a batch is never lost because its handler broke
            self._tell()
            return [Settlement.RETRY] * len(self._deliveries)
        return settlements

    async def abandon(self) -> None:
        """Of one that was prepared and not run."""
        if self._prepared is not None:
            try:
                await self._prepared.abandon()
            except Exception:  # noqa: BLE001 - as above; its deliveries come again, whatever is left of them
                self._tell()

    def _tell(self) -> None:
        self._failed = True
        _log.exception("broker.handler_failed", first=self._deliveries[0].position, count=len(self._deliveries))


class Taken(Protocol):
    """What an adapter keeps of a batch."""

    @property
    def work(self) -> BatchInHand: ...


_Batch = TypeVar("_Batch", bound=Taken)


class Ahead(Generic[_Batch]):
    """The batch behind the one that is being handled, while it is read and prepared."""

    def __init__(self) -> None:
        self._task: asyncio.Task[_Batch | None] | None = None

    @property
    def begun(self) -> bool:
        """Whether something may be read that is neither handled nor abandoned."""
        return self._task is not None

    def begin(self, source: Coroutine[Any, Any, _Batch | None], name: str) -> None:
        """Read and prepare it beside whatever comes next. Nothing is begun yet."""
        self._task = asyncio.create_task(source, name=name)

    async def take(self) -> _Batch | None:
        """The batch, once it is prepared; none when there was none, or nothing was begun. Raises what reading it
        raised; then, and when this is cancelled, it is still to be dropped."""
        if self._task is None:
            return None
        batch = await asyncio.shield(self._task)
        self._task = None
        return batch

    async def drop(self) -> _Batch | None:
        """Leave off, and abandon what was prepared: that is returned. Whatever else was read is not told."""
        task, self._task = self._task, None
        if task is None:
            return None
        task.cancel()
        [taken] = await asyncio.gather(task, return_exceptions=True)
        if taken is None or isinstance(taken, BaseException):
            return None
        await taken.work.abandon()
        return taken


def isolating(work: Callable[[Sequence[Delivery]], Awaitable[None]]) -> BatchHandler:
    """The handler that does `work` with a whole batch and, if that fails, with each delivery by itself, so that
    what cannot be worked off costs the others nothing. After a `TransientError` all of it comes again."""

    async def handle(deliveries: Sequence[Delivery]) -> list[Settlement]:
        try:
            await work(deliveries)
        except TransientError as error:
            _log.warning("broker.handler_waits", first=deliveries[0].position, error=str(error))
            return [Settlement.RETRY] * len(deliveries)
        except Exception:  # noqa: BLE001 - told apart below, one by one
            if len(deliveries) > 1:
                return [(await handle([delivery]))[0] for delivery in deliveries]
            _log.exception("broker.handler_failed", first=deliveries[0].position, count=1)
            return [Settlement.RETRY]
        return [Settlement.ACK] * len(deliveries)

    return handle
