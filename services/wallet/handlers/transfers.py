"""The use cases of transfers: quoting, accepting, reading, cancelling."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from services.wallet.domain import quotes, transfers
from services.wallet.domain.accounts import Account, AccountNotFoundError
from services.wallet.domain.fees import FeeRules
from services.wallet.domain.limits import day_of
from services.wallet.domain.quotes import MemberInactiveError, Quote, Sender
from services.wallet.domain.transfers import Labels, Transfer, TransferStatus
from services.wallet.events import TransferCancelled, TransferRequested
from services.wallet.handlers.accounts import change, member_account
from services.wallet.handlers.execution import Execution, execution_of, found_transfer
from services.wallet.store import accounts as account_rows
from services.wallet.store import transfers as transfer_rows
from services.wallet.store.administration import TransferFilter
from services.wallet.store.administration import list_transfers as list_transfer_rows
from shared.publishing import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user wants to send; `amount` is in the minor unit of the sender's currency.

    Where there is an `agreed_fee`, it is sent for that fee or not at all.
    """

    user_id: UUID
    sender_id: UUID
    receiver_id: UUID
    amount: int
    labels: Labels
    agreed_fee: int | None = None


async def quote_transfer(uow: UnitOfWork, user_id: UUID, sender_id: UUID, amount: int, fees: FeeRules) -> Quote:
    """What sending from this account of the user would cost, and what is left of limits.

    Raises `AccountNotFoundError` and `MemberInactiveError`.
    """
    now = datetime.now(UTC)
    return quotes.quote(await find_sender(uow, user_id, sender_id, now, lock=False), amount, fees, now)


async def request_transfer(uow: UnitOfWork, wish: Wish, fees: FeeRules) -> Transfer:
    """Accept a transfer: it is pending, its total is held, and its event published, all in this transaction.

    Raises `AccountNotFoundError`, `ReceiverError`, `AccountFrozenError`, `MemberInactiveError`, `FeeChangedError`,
    `LimitExceededError`, `InsufficientFundsError`.
    """
    transfer = await _accepted(uow, wish, fees, lock=True)
    uow.tell(transfer_rows.INSERT_TRANSFER, transfer_rows.inserted(transfer))
    uow.tell(account_rows.CHANGE_ACCOUNT, change(transfer.sender_id, held=transfer.total))
    uow.tell(
        account_rows.USE,
        {
            "account_id": transfer.sender_id,
            "day": transfer.day,
            "user_id": transfer.user_id,
            "sent": transfer.amount,
            "free_transfers": int(transfer.free),
        },
    )
    # In order per sender: whoever sends two is told of the first one first.
    uow.publish(TransferRequested.of(transfer), subject=str(transfer.id), key=str(transfer.sender_id))
    return transfer


async def preview_transfer(uow: UnitOfWork, wish: Wish, fees: FeeRules) -> Transfer:
    """What `request_transfer` would accept now; nothing is promised by it. Raises what that raises."""
    return await _accepted(uow, wish, fees, lock=False)


async def _accepted(uow: UnitOfWork, wish: Wish, fees: FeeRules, *, lock: bool) -> Transfer:
    """The transfer, judged with the sender locked, or as all is at this moment.

    What is more than there is now is refused as it is, without a lock that others may wait for.
    """
    now = datetime.now(UTC)
    found = await account_rows.find_accounts(uow.connection, [wish.receiver_id, wish.sender_id])
    if wish.receiver_id not in found:
        raise AccountNotFoundError(f"account {wish.receiver_id} does not exist")
    if lock and member_account(found, wish.sender_id, wish.user_id).available < wish.amount:
        await _accepted(uow, wish, fees, lock=False)
    sender = await find_sender(uow, wish.user_id, wish.sender_id, now, lock=lock)
    quoted = quotes.quote(sender, wish.amount, fees, now)
    quotes.require_agreed(quoted, wish.agreed_fee)
    transfer, _ = transfers.accept(uuid7(), sender, found[wish.receiver_id], quoted, labels=wish.labels, now=now)
    return transfer


async def find_sender(uow: UnitOfWork, user_id: UUID, account_id: UUID, now: datetime, *, lock: bool) -> Sender:
    """The user who sends from this account; locked, what limits and holds leave is so until this is committed.

    Raises `AccountNotFoundError` and `MemberInactiveError`.
    """
    owned = member_account(await account_rows.find_accounts(uow.connection, [account_id]), account_id, user_id)
    member = await account_rows.find_member(uow.connection, user_id, lock=lock)
    if member is None:
        raise MemberInactiveError(f"user {user_id} is not known here, or not yet")
    locked = await account_rows.lock_accounts(uow.connection, [account_id]) if lock else {account_id: owned}
    usage = await account_rows.find_usage(uow.connection, account_id, user_id, day_of(now))
    exceptions = await account_rows.find_exceptions(uow.connection, account_id, now)
    return Sender(locked[account_id], member, usage, exceptions)


async def get_transfer(uow: UnitOfWork, transfer_id: UUID, *, sent_by: UUID | None = None) -> Transfer:
    """The transfer, of the user `sent_by` or, with None, whoever's. Raises `TransferNotFoundError`."""
    return found_transfer(await transfer_rows.find_transfer(uow.reads, transfer_id), transfer_id, sent_by)


async def list_transfers(
    uow: UnitOfWork, user_id: UUID, status: TransferStatus | None, before: UUID | None, page_size: int
) -> list[Transfer]:
    """What a user has sent, newest first, of one status or, with None, of any."""
    wanted = TransferFilter(user_id=user_id, status=status)
    return await list_transfer_rows(uow.reads, wanted, before, page_size)


async def cancel_transfer(uow: UnitOfWork, transfer_id: UUID, *, sent_by: UUID | None = None) -> Transfer:
    """Take back a transfer that is pending, of the user `sent_by` or, with None, whoever's.

    Raises `TransferNotFoundError` and `TransferEndedError`.
    """
    execution = await execution_of(uow, [transfer_id])
    transfer = found_transfer(execution.transfers.get(transfer_id), transfer_id, sent_by)
    ending = transfers.cancel(transfer, _sender_of(execution, transfer), datetime.now(UTC))
    uow.publish(TransferCancelled.of(ending.transfer), subject=str(transfer_id), key=str(transfer.sender_id))
    execution.end(ending)
    return ending.transfer


def _sender_of(execution: Execution, transfer: Transfer) -> Account:
    """The sender's account; of a transfer that ended before it was not locked, and its own end says so."""
    if transfer.status is not TransferStatus.PENDING:
        raise transfers.TransferEndedError(f"transfer {transfer.id} is {transfer.status.value} already")
    return execution.accounts[transfer.sender_id]
