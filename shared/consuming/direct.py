"""What a subscription's consumer does with an event that it hears of directly, beside the broker (ADR 19).

An idle one tries it at once: it is claimed, recorded in the inbox and handled as any other, once. What comes of a
try that fails is nothing: the broker's own copy is the one that is tried again, put aside and settled. Of one that
has its effect, the copy finds it recorded.

Nothing here may hold up what the broker delivers, nor stand for it. So a try begins only while no batch is in
hand, one at a time; what comes meanwhile waits for its end, as it would for a batch before it. Only events that
are new are tried: what another process holds, or one before left unfinished, is the broker's alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from shared.broker import Delivery
from shared.consuming.batch import Batch, Status, Work
from shared.consuming.claiming import Claiming
from shared.consuming.finishing import Finishing
from shared.consuming.intake import Intake
from shared.consuming.subscriber import Subscriber
from shared.consuming.transaction import Transaction
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_REMEMBERED_MAX = 1_000
"""Events that had their effect here, and whose copies are yet to come."""
_CLAIMS_FIRST_S = 60.0
"""Behind one that another process held nothing is begun before it is claimed: it would wait for a row of that."""


def hears_directly(subscriber: Subscriber, settings: Settings) -> bool:
    """Whether events of this subscriber may come directly.

    Not if somebody waits for answers, if there are effects that nothing takes back when a try fails, or if its
    rate is limited, for which the broker's copies are counted.
    """
    if subscriber.outside_effects or subscriber.answers:
        return False
    limited = f"{subscriber.name}.{subscriber.channel}" in settings.rate_limit_per_s
    return not limited and any(handler.model.told_directly for handler in subscriber.handlers)


class DirectWay:
    """Of one subscription. Its pipeline says when a batch comes into its hands and when it has left them."""

    def __init__(
        self,
        intake: Intake,
        claiming: Claiming,
        transaction: Transaction,
        finishing: Finishing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.channel = intake.subscription.channel
        self._intake = intake
        self._claiming = claiming
        self._transaction = transaction
        self._finishing = finishing
        self._clock = clock
        self._in_hand = 0
        self._trying: asyncio.Task[None] | None = None
        self._done: dict[tuple[str, str], float] = {}
        """What had its effect here, and the seconds that it took."""
        self._claims_first_until = clock()

    # -- for the pipeline

    @property
    def is_alone(self) -> bool:
        """Whether no other process was in the midst of an event lately that was heard of here, too."""
        return self._clock() >= self._claims_first_until

    def enter(self) -> None:
        """A batch is in hand: nothing is tried."""
        self._in_hand += 1

    def leave(self) -> None:
        """It is not any more."""
        self._in_hand -= 1

    async def make_way(self, batch: Batch) -> float:
        """Wait until nothing is being tried; then its events that had their effect have it.

        Return how many seconds those took.
        """
        await self.settled()
        spent_s = 0.0
        if self._done:
            for identity, work in batch.works.items():
                took_s = self._done.pop(identity, None)
                if took_s is not None:
                    work.status, work.finished = Status.DONE, True
                    spent_s += took_s
        return spent_s

    # -- for who listens

    def hear(self, body: bytes) -> None:
        """Try the event if nothing else is to do; else forget it. Waits for nothing."""
        if self._in_hand or self._trying is not None:
            return
        self._trying = asyncio.create_task(self._try(body), name="direct-try")
        self._trying.add_done_callback(self._ended)

    async def settled(self) -> None:
        """Wait for the end of what is being tried."""
        if self._trying is not None:
            await asyncio.wait([self._trying])

    async def close(self) -> None:
        """End what is being tried: it has its effect or none."""
        if self._trying is not None:
            self._trying.cancel()
            await self.settled()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._trying = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("direct.failed", queue=self._intake.subscription.queue, exc_info=error)

    async def _try(self, body: bytes) -> None:
        began = time.perf_counter()
        batch = self._intake.read([_delivery(self.channel, body)])
        work = batch.lone()
        if work is None or not work.handler.model.told_directly:
            return
        recorded = False
        try:
            if await self._is_ours(work):
                await self._transaction.run([work])
                recorded = True
                await self._finishing.finish([work])
                self._remember(work, time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - whatever it is, the broker's copy meets it again
            _log.debug("direct.forgotten", queue=self._intake.subscription.queue, error=repr(error)[:500])
        finally:
            if not recorded:
                await asyncio.shield(self._let_go(batch, work))

    async def _is_ours(self, work: Work) -> bool:
        """Claim it, while its transaction begins."""
        if self._claiming.redis_is_away():
            return False
        if self.is_alone:
            self._transaction.begin(work)
        if await self._claiming.claim_once([work]):
            self._claims_first_until = self._clock() + _CLAIMS_FIRST_S
            return False
        return work.is_claimed and work.attempt == 1

    async def _let_go(self, batch: Batch, work: Work) -> None:
        """Leave nothing of what had no effect: no transaction, no claim, and no attempt that was counted."""
        await batch.roll_back()
        if work.is_claimed:
            await self._claiming.give_back([work])

    def _remember(self, work: Work, took_s: float) -> None:
        if len(self._done) >= _REMEMBERED_MAX:
            del self._done[next(iter(self._done))]
        self._done[work.envelope.source, work.envelope.id] = took_s


def _delivery(channel: str, body: bytes) -> Delivery:
    """As a broker would deliver it."""
    return Delivery(
        body, headers={}, channel=channel, key=None, redelivered=False, position="told directly", token=None
    )
