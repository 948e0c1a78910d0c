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
from shared.consuming.intake import transactions_at_once
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
        if subscriber.outside_effects:
            self._together_max, self._at_once_max = 1, subscriber.concurrency
        else:
            self._together_max, self._at_once_max = settings.batch_max, transactions_at_once(settings)

    async def run(self, batch: Batch) -> None:
        """Run what is open: all in one transaction, or what does not fit into one side by side in several."""
        works = batch.open()
        if len(works) > self._together_max or self._subscriber.outside_effects:
            await self._run_apart(works)
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
        if len(works) == 1:
            await self.run_each(works)
            return
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
        """Run several transactions at once, the events of one key in order: each in one of its own where a handler
        has effects outside, else as many together as may be.

        What has not begun when a server is lost, or within `outage_hold_s`, goes back to the broker.
        """
        deadline = time.monotonic() + self._settings.outage_hold_s

        async def run(chain: list[Work]) -> None:
            nonlocal deadline
            for begin in range(0, len(chain), self._together_max):
                if time.monotonic() > deadline:
                    retry_later(chain[begin:], UnavailableError("the batch takes too long"))
                    return
                together = chain[begin : begin + self._together_max]
                await self._run_together(together)
                lost = together[-1].error  # who is lost with one event is lost with all behind it
                if isinstance(lost, UnavailableError):
                    deadline = 0.0
                    retry_later(chain[begin + len(together) :], lost)
                    return

        await run_in_key_order(
            works, lambda work: work.envelope.key, run, self._at_once_max, together_min=self._together_max
        )

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
