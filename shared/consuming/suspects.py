"""The stage for a batch that some process took up before and never finished: one event at a time."""

from __future__ import annotations

from shared.consuming.attempts import Attempts
from shared.consuming.batch import Batch, Status, Work, retry_later, retry_with_followers
from shared.consuming.claiming import Claiming
from shared.consuming.finishing import Finishing
from shared.errors import AttemptsExhaustedError, UnavailableError
from shared.settings import Settings


class Suspects:
    """Claims, runs and finishes each event before the next one is claimed.

    So an event that kills its consumer is counted alone; taken up `deliveries_max` times, it is put aside.
    """

    def __init__(self, settings: Settings, claiming: Claiming, attempts: Attempts, finishing: Finishing) -> None:
        self._deliveries_max = settings.deliveries_max
        self._claiming = claiming
        self._attempts = attempts
        self._finishing = finishing

    async def run(self, batch: Batch) -> None:
        """Run what is open. Its claims, made all together, were given back."""
        works = batch.open()
        for index, work in enumerate(works):
            if work.status is None:
                await self._run_one(work, works[index:])
            await self._finishing.finish([work])
            await self._claiming.marked()  # before the next, which may be the one that kills

    async def _run_one(self, work: Work, rest: list[Work]) -> None:
        """Leave `work` with a status; `rest` begins with it and holds what may have to wait with it."""
        if await self._claiming.claim_once([work]):
            retry_with_followers([work], rest)
        elif work.status is None and work.attempt > self._deliveries_max:
            work.status = Status.DEAD_LETTERED
            work.error = AttemptsExhaustedError(f"taken up {work.attempt - 1} times and never finished")
        elif work.status is None:
            await self._attempts.run_each([work])
            if isinstance(work.error, UnavailableError):  # then the rest need not wait for it, too
                retry_later(rest, work.error)
