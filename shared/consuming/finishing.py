"""The last stage: dead letters are confirmed, claims marked or given back, receipts sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shared import failpoints
from shared.broker import Delivery
from shared.consuming.batch import PUT_ASIDE, RECORDED, Batch, Status, Work
from shared.consuming.claiming import Claiming
from shared.consuming.subscriber import PutAside
from shared.dead_letter.headers import LETTER_ID, Kind, given_letter_id, redrive_number
from shared.dead_letter.sender import DeadLetterSender
from shared.errors import AttemptsExhaustedError, TransientError
from shared.failpoints import FailPoints
from shared.publishing import UnitsOfWork

_STATUS_OF = {Kind.FAILED: Status.DEAD_LETTERED, Kind.DELAYED: Status.DELAYED, None: Status.RETRIED}
"""By what a letter was confirmed as; what the broker did not confirm stays with the broker."""


class Finishing:
    """Does what must be done before a batch is settled.

    It does not raise when the broker or Redis is away: a dead letter or receipt that is not confirmed makes its
    delivery `RETRIED`, and a claim that is neither marked nor given back runs out.
    """

    def __init__(
        self,
        letters: DeadLetterSender,
        claiming: Claiming,
        fail_points: FailPoints | None,
        *,
        units: UnitsOfWork,
        record: PutAside | None = None,
    ) -> None:
        self._letters = letters
        self._claiming = claiming
        self._fail_points = fail_points
        self._units = units
        self._record = record

    async def reject(self, batch: Batch) -> None:
        """Dead-letter what could not even be read."""
        if not batch.rejected:
            return
        letters = [(delivery, reason, 1) for delivery, reason in batch.rejected]
        for (delivery, _), status in zip(batch.rejected, await self._send(letters), strict=True):
            batch.statuses[id(delivery)] = status

    async def finish(self, works: Sequence[Work]) -> None:
        """Put aside what failed, mark what is done, give back what is to be retried; each event once."""
        works = [work for work in works if work.status is not None and not work.finished]
        others = [work for work in works if work.status is not Status.DONE]  # nearly always none
        await self._put_aside([work for work in others if work.status in PUT_ASIDE])
        if self._fail_points is not None and len(others) < len(works):
            self._fail_points.reach(failpoints.AFTER_COMMIT)
        await self._claiming.mark_done([work for work in works if work.status in RECORDED] if others else works)
        await self._claiming.give_back([work for work in others if work.status is Status.RETRIED])
        await self._claiming.give_back([work for work in others if work.status in PUT_ASIDE], forget=True)
        for work in works:
            work.finished = True

    async def send_receipts(self, batch: Batch) -> None:
        """Answer each redriven letter whose effect is recorded; without a confirmed answer it is retried."""
        given_back = [
            d for d in batch.deliveries if LETTER_ID in d.headers and given_letter_id(d.headers) is not None
        ]
        if not given_back:
            return
        recorded = {id(d) for work in batch.works.values() if work.status in RECORDED for d in work.deliveries}
        recorded |= {key for key, status in batch.statuses.items() if status is Status.IGNORED}
        answered = [delivery for delivery in given_back if id(delivery) in recorded]
        sent = await asyncio.gather(*(self._letters.send_receipt(delivery) for delivery in answered))
        for delivery, confirmed in zip(answered, sent, strict=True):
            if not confirmed:
                batch.statuses[id(delivery)] = Status.RETRIED

    async def _put_aside(self, works: Sequence[Work]) -> None:
        if not works:
            return
        exhausted = AttemptsExhaustedError("no reason recorded")
        # The delivery that was given back last: its letter waits for this answer.
        newest = [max(work.deliveries, key=lambda d: redrive_number(d.headers)) for work in works]
        letters = [
            (delivery, work.error or exhausted, max(work.attempt, work.runs))
            for delivery, work in zip(newest, works, strict=True)
        ]
        for work, status in zip(works, await self._send(letters), strict=True):
            work.status = status
            if status is Status.DEAD_LETTERED and self._record is not None:
                await self._record_letter(self._record, work, work.error or exhausted)

    async def _record_letter(self, record: PutAside, work: Work, error: Exception) -> None:
        """Tell the subscriber of a letter; what cannot be recorded now is tried again with the delivery."""
        try:
            async with self._units.begin() as uow:
                await record(work.event, error, uow)
        except TransientError as failure:
            work.status, work.error = Status.RETRIED, failure

    async def _send(self, letters: Sequence[tuple[Delivery, Exception, int]]) -> list[Status]:
        """Send each (delivery, reason, attempts) to its dead-letter place; return what became of it."""
        kinds = await asyncio.gather(*(self._letters.put_aside(*letter) for letter in letters))
        return [_STATUS_OF[kind] for kind in kinds]
