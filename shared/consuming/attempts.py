"""The stage that runs a batch's events, together, one by one or side by side, and tries again what failed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from shared.backoff import backoff_s, longest_wait_s
from shared.broker import Subscription
from shared.consuming.batch import Batch, Status, Work, retry_later
from shared.consuming.key_order import run_in_key_order
from shared.consuming.subscriber import Subscriber
from shared.errors import DelayError, PermanentError, UnavailableError
from shared.settings import Settings

_log = structlog.get_logger(__name__)

Transact = Callable[[Sequence[Work]], Awaitable[None]]
"""Gives events their effects in one transaction: `Transaction.run`."""


class Patience:
    """Waits for a server that is away, up to `outage_hold_s`, and counts no attempt: no event is to blame."""

    def __init__(self, settings: Settings, subscription: Subscription) -> None:
        self._settings = settings
        self._subscription = subscription

    async def run(self, action: Callable[[], Awaitable[None]]) -> None:
        """Repeat `action` until it raises no `UnavailableError`; raises the last one when the time is up."""
        settings = self._settings
        deadline = time.monotonic() + settings.outage_hold_s
        waits = 0
        while True:
            try:
                return await action()
            except UnavailableError as error:
                wait_s = longest_wait_s(waits, settings.retry_wait_initial_s, settings.retry_wait_max_s)
                if time.monotonic() + wait_s > deadline:
                    raise
                _log.warning("pipeline.waiting", queue=self._subscription.queue, error=str(error))
            await asyncio.sleep(wait_s)
            waits += 1


class Attempts:
    """Runs one subscription's events until each has a status.

    What goes on failing is `DEAD_LETTERED` (`Finishing` carries it out, as a delay where the error may pass); what
    a lost server keeps from its effect is `RETRIED`.
    """

    def __init__(
        self,
        settings: Settings,
        subscriber: Subscriber,
        subscription: Subscription,
        transact: Transact,
        patience: Patience,
    ) -> None:
        self._settings = settings
        self._subscriber = subscriber
        self._subscription = subscription
        self._transact = transact
        self._patience = patience

    async def run(self, batch: Batch) -> None:
        """Run what is open: events with outside effects side by side, all others in one transaction."""
        works = batch.open()
        if self._subscriber.outside_effects:
            await self._run_apart(works)
        elif len(works) == 1:
            await self.run_each(works)
        elif works:
            await self._run_together(works)

    async def run_each(self, works: Sequence[Work]) -> None:
        """Run a transaction for each event, one after the other, until a server is lost."""
        for index, work in enumerate(works):
            try:
                await self._run_alone(work)
            except UnavailableError as error:
                retry_later(works[index:], error)
                return

    async def _run_together(self, works: Sequence[Work]) -> None:
        """Run one transaction for all; if it fails, one for each: a bad event costs the others time only."""
        try:
            await self._patience.run(lambda: self._transact(works))
        except UnavailableError as error:
            retry_later(works, error)
        except Exception as error:  # noqa: BLE001 - isolated below, one by one
            _log.info(
                "pipeline.isolating", queue=self._subscription.queue, count=len(works), error=repr(error)[:500]
            )
            for work in works:
                work.status = work.error = None
            await self.run_each(works)

    async def _run_apart(self, works: Sequence[Work]) -> None:
        """Run a transaction for each event, `concurrency` at once, those of one key in order.

        What has not begun when a server is lost, or within `outage_hold_s`, goes back to the broker.
        """
        deadline = time.monotonic() + self._settings.outage_hold_s

        async def run(chain: list[Work]) -> None:
            nonlocal deadline
            for index, work in enumerate(chain):
                if time.monotonic() > deadline:
                    retry_later(chain[index:], UnavailableError("the batch takes too long"))
                    return
                try:
                    await self._run_alone(work)
                except UnavailableError as error:
                    deadline = 0.0
                    retry_later(chain[index:], error)
                    return

        await run_in_key_order(works, lambda work: work.envelope.key, run, self._subscriber.concurrency)

    async def _run_alone(self, work: Work) -> None:
        """Try one event again with backoff and jitter, bounded in number and time; raises `UnavailableError`."""
        settings = self._settings
        deadline = time.monotonic() + settings.handler_retry_max_s
        for attempt in range(1, settings.handler_attempts_max + 1):
            try:
                await self._patience.run(lambda: self._transact([work]))
            except UnavailableError:
                raise
            except (PermanentError, DelayError) as error:
                work.error = error
                break
            except Exception as error:  # noqa: BLE001 - unknown ones are retried like transient ones
                work.error = error
                wait_s = backoff_s(
                    attempt - 1, settings.retry_wait_initial_s, settings.retry_wait_max_s, random.random
                )
                if attempt == settings.handler_attempts_max or time.monotonic() + wait_s > deadline:
                    break
                await asyncio.sleep(wait_s)
            else:
                return
        work.status = Status.DEAD_LETTERED
