"""How the worker executes transfers, by the batch or one by one after a wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from services.wallet.domain import transfers
from services.wallet.domain.accounts import Account, AccountKind, house_account_id
from services.wallet.domain.transfers import Ending, Transfer, TransferNotFoundError, TransferStatus
from services.wallet.events import TransferCompleted, TransferFailed, TransferReceived, TransferRequested
from services.wallet.store import accounts as account_rows
from services.wallet.store import transfers as transfer_rows
from shared.consuming import EventHandler
from shared.event import Event
from shared.publishing import UnitOfWork


@dataclass(slots=True)
class Execution:
    """The transfers that one unit of work ends, and their accounts, all locked: see `UnitOfWork.part`.

    Each is ended in memory, where the next one of the batch finds what it left; the rows are changed at the flush.
    """

    transfers: dict[UUID, Transfer] = field(default_factory=dict)
    accounts: dict[UUID, Account] = field(default_factory=dict)
    _before: dict[UUID, Account] = field(default_factory=dict)
    _ended: list[Ending] = field(default_factory=list)

    def begin_event(self) -> None:
        """Nothing to remember: `end` is the last that a handler does."""

    def discard_event(self) -> None:
        """Nothing to take back: a handler that fails has ended no transfer."""

    async def load(self, uow: UnitOfWork, ids: Sequence[UUID]) -> None:
        """Lock these transfers, and the accounts of those that are pending."""
        self.transfers |= await transfer_rows.lock_transfers(uow.connection, ids)
        pending = [one for one in self.transfers.values() if one.status is TransferStatus.PENDING]
        wanted = {account_id for one in pending for account_id in (one.sender_id, one.receiver_id)}
        loaded = await account_rows.lock_accounts(uow.connection, wanted - self.accounts.keys())
        self.accounts |= loaded
        self._before |= loaded

    def end(self, ending: Ending) -> None:
        """The transfer has ended so."""
        self.transfers[ending.transfer.id] = ending.transfer
        self.accounts |= {account.id: account for account in ending.accounts}
        self._ended.append(ending)

    async def flush(self, uow: UnitOfWork) -> None:
        """Write down what ended since the last flush, and tell its postings."""
        ended, self._ended = self._ended, []
        if not ended:
            return
        await transfer_rows.end_transfers(uow.connection, [one.transfer for one in ended])
        changed = [(self._before[key], account) for key, account in self.accounts.items()]
        await transfer_rows.change_accounts(
            uow.connection, [(before, after) for before, after in changed if before != after]
        )
        self._before = dict(self.accounts)
        for one in ended:
            for posting in one.postings:
                uow.tell(transfer_rows.INSERT_POSTING, transfer_rows.posted(one.transfer.id, posting))
            if one.transfer.status is not TransferStatus.COMPLETED:
                uow.tell(account_rows.GIVE_BACK, _given_back(one.transfer))


def _given_back(transfer: Transfer) -> dict[str, object]:
    return {
        "of_account": transfer.sender_id,
        "of_day": transfer.day,
        "less_sent": transfer.amount,
        "less_free": int(transfer.free),
    }


def found_transfer(transfer: Transfer | None, transfer_id: UUID, sent_by: UUID | None = None) -> Transfer:
    """What was looked for. Raises `TransferNotFoundError`, also for another user's than `sent_by`."""
    if transfer is None or sent_by not in (None, transfer.user_id):
        raise TransferNotFoundError(f"transfer {transfer_id} does not exist")
    return transfer


async def execution_of(uow: UnitOfWork, ids: Sequence[UUID]) -> Execution:
    """The unit of work's execution, with these transfers locked."""
    execution = uow.part(Execution, Execution)
    await execution.load(uow, ids)
    return execution


async def lock_batch(events: Sequence[Event[TransferRequested]], uow: UnitOfWork) -> None:
    """Lock what the batch's transfers change, in one order whatever order they came in."""
    if ids := [event.data.transfer_id for event in events if isinstance(event.data, TransferRequested)]:
        await execution_of(uow, ids)


async def on_transfer_requested(event: Event[TransferRequested], uow: UnitOfWork) -> None:
    """Execute the transfer; one that has ended stays as it is. Raises `TransferNotFoundError`."""
    execution = uow.part(Execution, Execution)
    transfer = found_transfer(execution.transfers.get(event.data.transfer_id), event.data.transfer_id)
    if transfer.status is not TransferStatus.PENDING:
        return
    fees_id = house_account_id(AccountKind.FEES, transfer.currency)
    ending = transfers.execute(transfer, execution.accounts, fees_id, datetime.now(UTC))
    ended = ending.transfer
    told = TransferCompleted if ended.status is TransferStatus.COMPLETED else TransferFailed
    uow.publish(told.of(ended), subject=str(ended.id), key=str(ended.sender_id))
    receiver = execution.accounts[ended.receiver_id].user_id
    if ended.status is TransferStatus.COMPLETED and receiver not in (None, ended.user_id):
        received = TransferReceived.by(ended, receiver)
        uow.publish(received, subject=str(ended.id), key=str(ended.receiver_id))
    execution.end(ending)


def waiting_first(delay_s: float) -> EventHandler:
    """As `on_transfer_requested`, but so many seconds later; nothing is locked before they are over."""

    async def on_transfer_requested_later(event: Event[TransferRequested], uow: UnitOfWork) -> None:
        await asyncio.sleep(delay_s)
        await lock_batch([event], uow)
        await on_transfer_requested(event, uow)

    return on_transfer_requested_later
