"""The use cases of the wallet, and how its worker executes transfers by the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from services.wallet.domain import accounts, quotes, transfers
from services.wallet.domain.accounts import Account, AccountKind, AccountNotFoundError, house_account_id
from services.wallet.domain.fees import FeeRules
from services.wallet.domain.limits import AccountType, day_of
from services.wallet.domain.postings import Posting, balanced
from services.wallet.domain.quotes import MemberInactiveError, Quote, Sender
from services.wallet.domain.transfers import Ending, Labels, Transfer, TransferNotFoundError, TransferStatus
from services.wallet.events import (
    TransferCancelled,
    TransferCompleted,
    TransferFailed,
    TransferRequested,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserRegistered,
)
from services.wallet.store import accounts as account_rows
from services.wallet.store import transfers as transfer_rows
from services.wallet.store.transfers import Entry
from shared.consuming import Handler, Subscriber
from shared.event import Event
from shared.publishing import UnitOfWork

NAME = "wallet"

# -- accounts


def record_account_type(uow: UnitOfWork, offered: AccountType) -> None:
    """Offer this type of account, or give the type that has its name these limits."""
    limits = offered.limits
    row = {"name": offered.name, "limit_one_time": limits.one_time, "limit_daily": limits.daily}
    uow.tell(account_rows.RECORD_ACCOUNT_TYPE, row)


def open_account(uow: UnitOfWork, user_id: UUID, account_type: str, currency: str) -> UUID:
    """Open an account of a type that is offered, and the house's in this currency where there are none."""
    for kind in (AccountKind.WORLD, AccountKind.FEES):
        row = {"id": house_account_id(kind, currency), "kind": kind.value, "currency": currency}
        uow.tell(account_rows.INSERT_ACCOUNT_IF_NEW, row)
    account_id = uuid7()
    uow.tell(
        account_rows.INSERT_ACCOUNT,
        {
            "id": account_id,
            "kind": AccountKind.MEMBER.value,
            "currency": currency,
            "user_id": user_id,
            "type": account_type,
        },
    )
    return account_id


async def get_account(uow: UnitOfWork, account_id: UUID) -> Account:
    """The account as it is now. Raises `AccountNotFoundError`, also for an account of the house."""
    found = await account_rows.find_accounts(uow.connection, [account_id])
    return _member_account(found, account_id)


async def list_entries(uow: UnitOfWork, account_id: UUID, before: int | None, page_size: int) -> list[Entry]:
    """What changed an account's balance, newest first; none for an account that there is not."""
    return await transfer_rows.list_entries(uow.connection, account_id, before, page_size)


async def adjust(uow: UnitOfWork, account_id: UUID, amount: int, reason: str, made_by: str) -> Account:
    """Have money come into an account from outside, or leave it where `amount` is negative.

    Raises `AccountNotFoundError`, `InsufficientFundsError` and `BalanceTooLargeError`.
    """
    account = _member_account(await account_rows.lock_accounts(uow.connection, [account_id]), account_id)
    world = house_account_id(AccountKind.WORLD, account.currency)
    made = balanced([Posting(account_id, account.currency, amount), Posting(world, account.currency, -amount)])
    after, movement_id = accounts.post(account, made[0]), uuid7()
    row = {"id": movement_id, "account_id": account_id, "amount": amount, "reason": reason, "made_by": made_by}
    uow.tell(account_rows.INSERT_ADJUSTMENT, row)
    for posting in made:
        uow.tell(transfer_rows.INSERT_POSTING, transfer_rows.posted(movement_id, posting))
    uow.tell(account_rows.CHANGE_ACCOUNT, _change(account_id, balance=amount))
    return after


async def freeze(uow: UnitOfWork, account_id: UUID, *, frozen: bool) -> Account:
    """Freeze an account, or thaw it. Raises `AccountNotFoundError`."""
    account = _member_account(await account_rows.lock_accounts(uow.connection, [account_id]), account_id)
    uow.tell(account_rows.FREEZE_ACCOUNT, {"account_id": account_id, "new_frozen": frozen})
    return replace(account, frozen=frozen)


def _member_account(found: dict[UUID, Account], account_id: UUID) -> Account:
    account = found.get(account_id)
    if account is None or account.kind is not AccountKind.MEMBER:
        raise AccountNotFoundError(f"account {account_id} does not exist")
    return account


def _change(account_id: UUID, *, balance: int = 0, held: int = 0) -> dict[str, object]:
    return {"account_id": account_id, "more_balance": balance, "more_held": held}


# -- transfers


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to send; `amount` is in the minor unit of the sender's currency."""

    sender_id: UUID
    receiver_id: UUID
    amount: int
    labels: Labels


async def quote_transfer(uow: UnitOfWork, sender_id: UUID, amount: int, fees: FeeRules) -> Quote:
    """What sending would cost, and what is left of limits.

    Raises `AccountNotFoundError` and `MemberInactiveError`.
    """
    now = datetime.now(UTC)
    return quotes.quote(await _sender(uow, sender_id, now, lock=False), amount, fees, now)


async def request_transfer(uow: UnitOfWork, wish: Wish, fees: FeeRules) -> Transfer:
    """Accept a transfer: it is pending, its total is held, and its event published, all in this transaction.

    Raises `AccountNotFoundError`, `ReceiverError`, `AccountFrozenError`, `MemberInactiveError`,
    `LimitExceededError`, `InsufficientFundsError`.
    """
    now = datetime.now(UTC)
    found = await account_rows.find_accounts(uow.connection, [wish.receiver_id])
    if wish.receiver_id not in found:
        raise AccountNotFoundError(f"account {wish.receiver_id} does not exist")
    sender = await _sender(uow, wish.sender_id, now, lock=True)
    quoted = quotes.quote(sender, wish.amount, fees, now)
    transfer, _ = transfers.accept(uuid7(), sender, found[wish.receiver_id], quoted, labels=wish.labels, now=now)
    uow.tell(transfer_rows.INSERT_TRANSFER, transfer_rows.inserted(transfer))
    uow.tell(account_rows.CHANGE_ACCOUNT, _change(transfer.sender_id, held=transfer.total))
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


async def _sender(uow: UnitOfWork, account_id: UUID, now: datetime, *, lock: bool) -> Sender:
    """Who sends from this account; locked, what limits and holds leave is so until this is committed."""
    owned = _member_account(await account_rows.find_accounts(uow.connection, [account_id]), account_id)
    assert owned.user_id is not None, "a member's account has a user"
    member = await account_rows.find_member(uow.connection, owned.user_id, lock=lock)
    if member is None:
        raise MemberInactiveError(f"user {owned.user_id} is not known here, or not yet")
    locked = await account_rows.lock_accounts(uow.connection, [account_id]) if lock else {account_id: owned}
    usage = await account_rows.find_usage(uow.connection, account_id, owned.user_id, day_of(now))
    exceptions = await account_rows.find_exceptions(uow.connection, account_id, now)
    return Sender(locked[account_id], member, usage, exceptions)


async def get_transfer(uow: UnitOfWork, transfer_id: UUID) -> Transfer:
    """The transfer as it is now. Raises `TransferNotFoundError`."""
    return _found(await transfer_rows.find_transfer(uow.connection, transfer_id), transfer_id)


async def cancel_transfer(uow: UnitOfWork, transfer_id: UUID) -> Transfer:
    """Take back a transfer that is pending. Raises `TransferNotFoundError` and `TransferEndedError`."""
    execution = await _execution(uow, [transfer_id])
    transfer = _found(execution.transfers.get(transfer_id), transfer_id)
    ending = transfers.cancel(transfer, _sender_of(execution, transfer), datetime.now(UTC))
    uow.publish(TransferCancelled.of(ending.transfer), subject=str(transfer_id), key=str(transfer.sender_id))
    execution.end(ending)
    return ending.transfer


def _found(transfer: Transfer | None, transfer_id: UUID) -> Transfer:
    if transfer is None:
        raise TransferNotFoundError(f"transfer {transfer_id} does not exist")
    return transfer


def _sender_of(execution: Execution, transfer: Transfer) -> Account:
    """The sender's account; of a transfer that ended before it was not locked, and its own end says so."""
    if transfer.status is not TransferStatus.PENDING:
        raise transfers.TransferEndedError(f"transfer {transfer.id} is {transfer.status.value} already")
    return execution.accounts[transfer.sender_id]


# -- execution


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


async def _execution(uow: UnitOfWork, ids: Sequence[UUID]) -> Execution:
    execution = uow.part(Execution, Execution)
    await execution.load(uow, ids)
    return execution


async def lock_batch(events: Sequence[Event[TransferRequested]], uow: UnitOfWork) -> None:
    """Lock what the batch's transfers change, in one order whatever order they came in."""
    if ids := [event.data.transfer_id for event in events if isinstance(event.data, TransferRequested)]:
        await _execution(uow, ids)


async def on_transfer_requested(event: Event[TransferRequested], uow: UnitOfWork) -> None:
    """Execute the transfer; one that has ended stays as it is. Raises `TransferNotFoundError`."""
    execution = uow.part(Execution, Execution)
    transfer = _found(execution.transfers.get(event.data.transfer_id), event.data.transfer_id)
    if transfer.status is not TransferStatus.PENDING:
        return
    fees_id = house_account_id(AccountKind.FEES, transfer.currency)
    ending = transfers.execute(transfer, execution.accounts, fees_id, datetime.now(UTC))
    told = TransferCompleted if ending.transfer.status is TransferStatus.COMPLETED else TransferFailed
    uow.publish(told.of(ending.transfer), subject=str(transfer.id), key=str(transfer.sender_id))
    execution.end(ending)


# -- users


async def on_user_event(event: Event[UserEvent], uow: UnitOfWork) -> None:
    """Know the user; one who is deactivated sends nothing any more."""
    user = event.data
    row = {"user_id": user.user_id, "active": not isinstance(user, UserDeactivated), "version": user.version}
    uow.tell(account_rows.RECORD_MEMBER, row)


SUBSCRIBERS = (
    Subscriber(
        channel="user",
        name=NAME,
        handlers=tuple(
            Handler(model, on_user_event) for model in (UserRegistered, UserProfileUpdated, UserDeactivated)
        ),
    ),
    Subscriber(
        channel="transfer",
        name=NAME,
        handlers=(Handler(TransferRequested, on_transfer_requested),),
        ignores=frozenset({"transfer.completed", "transfer.failed", "transfer.cancelled"}),
        prepare=lock_batch,
    ),
)
