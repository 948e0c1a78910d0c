"""The transaction in which events take effect: inbox rows, handlers, and everything that they told."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from shared import failpoints
from shared.broker import Subscription
from shared.consuming import inbox
from shared.consuming.batch import PUT_ASIDE, Status, Work
from shared.consuming.begun import Begun, Recorded, is_recorded
from shared.consuming.subscriber import Prepare
from shared.errors import DelayError, PermanentError, TransientError, UnavailableError
from shared.failpoints import FailPoints
from shared.publishing import UnitOfWork, UnitsOfWork
from shared.settings import Settings
from shared.telemetry import BatchInHand, Spans


class Transaction:
    """One subscription's transactions, one for each call of `run`."""

    def __init__(
        self,
        settings: Settings,
        subscription: Subscription,
        units: UnitsOfWork,
        spans: Spans,
        fail_points: FailPoints | None,
        *,
        prepare: Prepare | None = None,
        outside_effects: bool = False,
    ) -> None:
        self._timeout_s = settings.handler_timeout_s
        self._subscription = subscription
        self._units = units
        self._spans = spans
        self._fail_points = fail_points
        self._prepare = prepare
        self._outside_effects = outside_effects
        self._needing: set[str] = set()
        """The event types whose handler needed a transaction the last time that one was alone in it."""

    def begin(self, work: Work) -> None:
        """Begin the one of a lone event, beside whatever comes next: `run` goes on with it. Where it needs none,
        only a connection is had meanwhile."""
        if not self._outside_effects:
            work.begun = self._beginning([work])
            work.begun.begin()

    def _beginning(self, works: Sequence[Work]) -> Begun:
        """An event alone that seems new is taken for it, so that it is one statement if it can be."""
        asks_last = (
            len(works) == 1
            and not self._outside_effects
            and works[0].envelope.type not in self._needing
            and works[0].seems_new
        )
        events = [work.envelope for work in works]
        return Begun(self._units, self._subscription.subscriber, events, asks_last=asks_last)

    async def run(self, works: Sequence[Work]) -> None:
        """Give each event its effect and its status, all in one transaction; when it raises, none has an effect.

        Raises what a handler or the database raises, and `TransientError` when it takes over `handler_timeout_s`.
        """
        if self._fail_points is not None:
            self._fail_points.reach(failpoints.BEFORE_EFFECT)
        begun = works[0].begun
        if begun is None or not begun.is_beside:
            begun = self._beginning(works)
        try:
            await self._run(works, begun)
        except UnavailableError:  # it is run again, and the inbox asked first
            raise
        except Exception:
            if not begun.asks_last or not await self._is_recorded(works[0]):
                raise
            works[0].status, works[0].error = Status.DUPLICATE, None

    async def _is_recorded(self, work: Work) -> bool:
        return await is_recorded(self._units, self._subscription.subscriber, work.envelope)

    async def _run(self, works: Sequence[Work], begun: Begun) -> None:
        tracing: BatchInHand | None = None
        failure: BaseException | None = None
        limit = asyncio.timeout(self._timeout_s)
        try:
            with self._spans.process_batch(self._subscription, [work.envelope for work in works]) as tracing:
                async with limit, begun as recorded:
                    await self._take_effect(works, recorded, tracing)
                    if begun.asks_last and not limit.expired():
                        limit.reschedule(None)  # a statement that is cut off might be committed later
            if len(works) == 1:
                self._learn(works[0], recorded)
        except TimeoutError as error:
            failure = error
            if not limit.expired():
                raise
            raise TransientError(f"not finished within {self._timeout_s:g} s") from error
        except BaseException as error:
            failure = error
            raise
        finally:
            if tracing is not None:
                tracing.end(*_ends(works, failure))

    async def _take_effect(self, works: Sequence[Work], recorded: Recorded, tracing: BatchInHand | None) -> None:
        """Run the handlers of those that are new to the inbox, each in its event's span."""
        uow, known = recorded
        if self._prepare is not None:
            new = [work.event for work in works if (work.envelope.source, work.envelope.id) not in known]
            await self._prepare(new, uow)
        try:
            await self._handle(works, uow, known, tracing)
        finally:
            if tracing is not None:
                tracing.rest()
        aside = [work.envelope for work in works if work.status in PUT_ASIDE]
        if aside:
            await inbox.forget(uow.connection, self._subscription.subscriber, aside)
        if self._fail_points is not None and self._fail_points.has(failpoints.AFTER_EFFECT):
            await uow.flush()
            self._fail_points.reach(failpoints.AFTER_EFFECT)

    async def _handle(
        self,
        works: Sequence[Work],
        uow: UnitOfWork,
        known: Collection[tuple[str, str]],
        tracing: BatchInHand | None,
    ) -> None:
        """Call the handlers of those that are new, one after the other.

        An error that no retry will change undoes its event alone, where that can be done; any other fails the
        transaction.
        """
        alone = len(works) == 1
        for number, work in enumerate(works):
            if known and (work.envelope.source, work.envelope.id) in known:
                work.status = Status.DUPLICATE
                continue
            if tracing is not None:
                tracing.begin(number)
            work.runs += 1
            uow.begin_event(work.envelope)
            try:
                if self._fail_points is not None:
                    self._fail_points.reach(failpoints.HANDLER + work.envelope.type)
                await work.handler.handle(work.event, uow)
            except (PermanentError, DelayError) as error:
                if alone or not uow.can_discard_event:
                    raise
                uow.discard_event()
                work.error = error
                work.status = Status.DELAYED if isinstance(error, DelayError) else Status.DEAD_LETTERED
            else:
                work.status, work.error = Status.DONE, None

    def _learn(self, work: Work, recorded: Recorded) -> None:
        """Remember whether its handler needed a transaction."""
        uow, _ = recorded
        if work.status is Status.DONE:
            (self._needing.add if uow.used_transaction else self._needing.discard)(work.envelope.type)


def _ends(works: Sequence[Work], failure: BaseException | None) -> tuple[list[str], Mapping[int, BaseException]]:
    """How each event's span ends, and the errors of those that have one, by their places."""
    if failure is not None:
        status = Status.DEAD_LETTERED.value if isinstance(failure, PermanentError) else "rolled_back"
        return [status] * len(works), dict.fromkeys(range(len(works)), failure)
    errors = {number: work.error for number, work in enumerate(works) if work.error is not None}
    return [work.status or Status.DONE for work in works], errors
