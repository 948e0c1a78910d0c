"""The stage that claims a batch's events in Redis, and later marks or gives back what it claimed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

import structlog

from shared.broker import Subscription
from shared.consuming.batch import Batch, Status, Work, retry_with_followers
from shared.consuming.claims import FIRST, Claims, ClaimState
from shared.errors import UnavailableError
from shared.settings import Settings
from shared.telemetry import Metrics

_log = structlog.get_logger(__name__)

_BUSY_POLL_S = 0.1
_BUSY_POLL_FIRST_S = 0.005
"""Then twice as long each time: another process may be trying what it heard of directly, which takes moments."""
_REDIS_PAUSE_S = 1.0
"""Once Redis did not answer, it is left alone for so long."""
_COUNTED = {state: frozenset((state,)) for state in ClaimState}


class Claiming:
    """Claims, marks and gives back one subscription's events.

    While Redis is away everything goes on unclaimed: the inbox alone still keeps every effect single.
    """

    def __init__(self, settings: Settings, subscription: Subscription, claims: Claims, metrics: Metrics) -> None:
        # A dead holder's heartbeat runs out within its TTL; twice that, and the holder lives.
        self._busy_wait_max_s = 2 * settings.heartbeat_ttl_s
        self._subscription = subscription
        self._claims = claims
        self._metrics = metrics
        self._redis_away_until = 0.0
        self._marking: asyncio.Task[None] | None = None

    async def claim(self, batch: Batch) -> None:
        """Claim what is open; wait, bounded, for what a living process holds, so that order is kept.

        What was begun beside the claim of a lone event is rolled back if it must wait, or is suspect.
        """
        pending, lone = batch.open(), batch.lone()
        deadline = time.monotonic() + self._busy_wait_max_s
        poll_s = _BUSY_POLL_FIRST_S
        while pending:
            pending = await self.claim_once(pending)
            if lone is not None and (pending or lone.attempt > 1):
                await batch.roll_back()
            if pending and time.monotonic() > deadline:
                retry_with_followers(pending, batch.open())
                return
            if pending:
                await asyncio.sleep(poll_s)
                poll_s = min(2 * poll_s, _BUSY_POLL_S)

    async def claim_once(self, works: Sequence[Work]) -> list[Work]:
        """Claim `works` and return those that are busy; those that are done become duplicates."""
        if self.redis_is_away():
            self._metrics.without_claims(self._subscription, len(works))
            return []
        try:
            claims = await self._claims.claim(self._subscription.subscriber, [work.envelope for work in works])
        except UnavailableError as error:
            self._redis_lost(error)
            self._metrics.without_claims(self._subscription, len(works))
            return []
        counted = [work.claims_counted for work in works]
        if claims.count(FIRST) == len(claims) and not any(counted):  # nearly always
            for work in works:
                work.claims_counted = _COUNTED[ClaimState.NEW]
            self._metrics.claimed(self._subscription, {ClaimState.NEW: len(works)})
            return []
        busy: list[Work] = []
        outcomes: Counter[StrEnum] = Counter()
        for work, claim in zip(works, claims, strict=True):
            state = claim.state
            if state not in work.claims_counted:  # what is busy is asked for repeatedly
                outcomes[state] += 1
                work.claims_counted = work.claims_counted | {state} if work.claims_counted else _COUNTED[state]
            if state is ClaimState.NEW:  # nearly always
                work.attempt = claim.attempt
            elif state is ClaimState.DONE:
                work.status = Status.DUPLICATE
            else:
                busy.append(work)
        self._metrics.claimed(self._subscription, outcomes)
        return busy

    async def mark_done(self, works: Sequence[Work]) -> None:
        """Have it marked in Redis that their effects are recorded, beside whatever comes next: nothing waits for
        that but the marking after it, since the inbox knows already."""
        await self.marked()
        if works and not self.redis_is_away():
            self._marking = self._claims.beside(self._mark(works))

    async def marked(self) -> None:
        """Wait for what `mark_done` has begun."""
        marking = self._marking
        if marking is not None:
            if not marking.done():
                await asyncio.wait([marking])
            self._marking = None
            marking.result()

    async def _mark(self, works: Sequence[Work]) -> None:
        try:
            await self._claims.done(self._subscription.subscriber, [work.envelope for work in works])
        except UnavailableError as error:
            self._redis_lost(error)

    async def give_back(self, works: Sequence[Work], *, forget: bool = False) -> None:
        """Release their claims, as far as they are ours; `forget` drops the count of earlier deliveries, too."""
        if works and not self.redis_is_away():
            events = [work.envelope for work in works]
            try:
                await self._claims.release(self._subscription.subscriber, events, forget=forget)
            except UnavailableError as error:
                self._redis_lost(error)

    def redis_is_away(self) -> bool:
        """Whether it is left alone, since it did not answer a moment ago."""
        return time.monotonic() < self._redis_away_until

    def _redis_lost(self, error: UnavailableError) -> None:
        if time.monotonic() - self._redis_away_until > _REDIS_PAUSE_S:
            _log.warning("pipeline.without_claims", queue=self._subscription.queue, error=str(error))
        self._redis_away_until = time.monotonic() + _REDIS_PAUSE_S
