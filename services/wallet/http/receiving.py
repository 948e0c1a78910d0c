"""Asking the worker for shares and waiting for it.

Replies are hints: whatever is answered, or is not, the receipt's row says what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from services.wallet.domain.receipts import ANSWER_WITHIN, Receipt, ReceiptStatus, Wanted
from services.wallet.events import ShareAsked
from services.wallet.handlers.receiving import begin_all, settle_all
from services.wallet.http.gathering import Gathering
from services.wallet.store.asking import Asked
from shared.errors import PermanentError, TransientError
from shared.publishing import UnitsOfWork
from shared.reply import NoAnswerError, Requests

_log = structlog.get_logger(__name__)

_ASK_S: Final = 8.5
"""After that the row is looked at, and given up where it can be."""
_PREPARE_S: Final = 9.0
_ANSWER_S: Final = ANSWER_WITHIN.total_seconds()
_UNKNOWN: Final = "there is no answer yet"
_NO_ANSWER: Final = {
    ReceiptStatus.NOT_BEGUN: "nobody began it in time, and nobody will",
    ReceiptStatus.ASKED: "it is begun, and not ended yet",
}


class NoOutcomeError(TransientError):
    """There is no outcome within the time, or the question could not be put: `receipt` is where to look for it."""

    def __init__(self, message: str, *, receipt_id: UUID, late: bool) -> None:
        super().__init__(message)
        self.receipt_id = receipt_id
        self.late = late


@dataclass(frozen=True, slots=True)
class Answered:
    """A receipt that has ended, or was asked for and answered before."""

    receipt: Receipt
    replayed: bool = False


class Receiving:
    """Asks the worker for shares, on behalf of one process's clients.

    What it asks of the database it asks for all clients of a moment at once; while they wait for the worker, they
    hold no connection.
    """

    def __init__(self, units: UnitsOfWork, requests: Requests) -> None:
        self._units = units
        self._requests = requests
        self._begun = Gathering(self._begin)
        self._ended = Gathering(self._settle)

    async def receive(self, wanted: Wanted) -> Answered:
        """A receipt that is received or refused, within `ANSWER_WITHIN`.

        Raises what `begin` raises, and `NoOutcomeError`.
        """
        deadline = asyncio.get_running_loop().time() + _ANSWER_S
        receipt_id = uuid7()
        try:
            async with asyncio.timeout_at(deadline):
                receipt = await self._begun.ask(Asked(receipt_id, wanted))
                if receipt.status is ReceiptStatus.RECEIVED:
                    return Answered(receipt, replayed=True)
                receipt_id, replayed = receipt.id, receipt.id != receipt_id
                late = await self._ask(receipt)
                settled = await self._settled(receipt, late=late)
        except TimeoutError as error:
            raise NoOutcomeError(_UNKNOWN, receipt_id=receipt_id, late=True) from error
        if settled.status in {ReceiptStatus.RECEIVED, ReceiptStatus.REFUSED}:
            return Answered(settled, replayed=replayed)
        raise NoOutcomeError(_NO_ANSWER[settled.status], receipt_id=receipt_id, late=late)

    async def _settled(self, receipt: Receipt, *, late: bool) -> Receipt:
        try:
            return await self._ended.ask(receipt.id)
        except TransientError as error:
            raise NoOutcomeError(_UNKNOWN, receipt_id=receipt.id, late=late) from error

    async def _begin(self, asked: Sequence[Asked]) -> Sequence[Receipt | Exception]:
        async with self._units.statement() as connection:
            return await begin_all(connection, asked)

    async def _settle(self, ids: Sequence[UUID]) -> Sequence[Receipt | Exception]:
        async with self._units.statement() as connection:
            return await settle_all(connection, ids)

    async def _ask(self, receipt: Receipt) -> bool:
        """Put the question and wait; True when nobody answered in time. What is answered says nothing."""
        try:
            async with asyncio.timeout(_PREPARE_S):
                subject = str(receipt.distribution_id)
                await self._requests.ask(
                    ShareAsked.channel, ShareAsked(receipt_id=receipt.id), _ASK_S, subject=subject
                )
        except (TimeoutError, NoAnswerError):
            return True
        except (TransientError, PermanentError) as error:
            _log.warning("receipt.not_answered", receipt=str(receipt.id), error=repr(error)[:200])
        return False
