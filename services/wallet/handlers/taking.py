"""How the worker hands out shares: what a batch of requests asks for, decided under locks, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.wallet.domain.accounts import Account
from services.wallet.domain.distributions import Distribution
from services.wallet.domain.receipts import Outcome, Receipt, ReceiptNotFoundError, ReceiptStatus, take
from services.wallet.events import DistributionClosed, ShareAnswered, ShareAsked
from services.wallet.store import accounts as account_rows
from services.wallet.store import distributions as rows
from services.wallet.store import receipts as receipt_rows
from services.wallet.store.locking import lock_one
from services.wallet.store.taking import write_outcomes
from shared.event import Event
from shared.publishing import UnitOfWork


@dataclass(slots=True)
class Taking:
    """The receipts that one unit of work ends, their distributions and accounts, all locked: `UnitOfWork.part`.

    Each is decided in memory, where the next one of the batch finds what it left; the rows change at the flush.
    """

    receipts: dict[UUID, Receipt] = field(default_factory=dict)
    distributions: dict[UUID, Distribution] = field(default_factory=dict)
    accounts: dict[UUID, Account] = field(default_factory=dict)
    now: datetime | None = None
    """The database's clock when receipts and distributions were locked: what counts as begun."""
    _before: dict[UUID, Account] = field(default_factory=dict)
    _outcomes: list[Outcome] = field(default_factory=list)

    def begin_event(self) -> None:
        """Nothing to remember: `end` is the last that a handler does."""

    def discard_event(self) -> None:
        """Nothing to take back: a handler that fails has ended no receipt."""

    async def load(self, uow: UnitOfWork, ids: Sequence[UUID]) -> None:
        """Lock these receipts, and of those that are asked the distributions and all accounts, in one order."""
        if len(ids) == 1 and (found := await lock_one(uow.connection, ids[0])) is not None:
            self.receipts[found.receipt.id] = found.receipt
            self.distributions[found.distribution.id] = found.distribution
            self.accounts |= {one.id: one for one in found.accounts}
            self.now, self._before = found.now, dict(self.accounts)
            return
        self.receipts |= await receipt_rows.lock_receipts(uow.connection, ids)
        askers: dict[UUID, list[UUID]] = {}
        for one in self.asked():
            askers.setdefault(one.distribution_id, []).append(one.user_id)
        if askers:
            self.distributions |= await rows.lock_for(uow.connection, askers)
            wanted = {one.account_id for one in self.asked()} | self.distributions.keys()
            locked, self.now = await account_rows.lock_accounts_now(uow.connection, wanted)
            self.accounts |= locked
            self._before = dict(self.accounts)

    def asked(self) -> list[Receipt]:
        """Those of the receipts that have not ended."""
        return [one for one in self.receipts.values() if one.status is ReceiptStatus.ASKED]

    def end(self, outcome: Outcome) -> None:
        """The receipt has come to this."""
        self.receipts[outcome.receipt.id] = outcome.receipt
        self.distributions[outcome.distribution.id] = outcome.distribution
        self.accounts |= {account.id: account for account in outcome.accounts}
        self._outcomes.append(outcome)

    async def flush(self, uow: UnitOfWork) -> None:
        """Write down what was decided since the last flush."""
        decided, self._outcomes = self._outcomes, []
        if not decided:
            return
        changed = [(self._before[key], account) for key, account in self.accounts.items()]
        changes = [(before, after) for before, after in changed if before != after]
        await write_outcomes(uow.connection, decided, changes)
        self._before = dict(self.accounts)
        for one in decided:
            if one.share is not None and one.distribution.closed_at is not None:
                uow.tell(rows.CLOSE, rows.closed(one.distribution, None))


async def lock_asked(events: Sequence[Event[ShareAsked]], uow: UnitOfWork) -> None:
    """Lock what the batch's requests change, in one order whatever order they came in."""
    if ids := [event.data.receipt_id for event in events]:
        await uow.part(Taking, Taking).load(uow, ids)


async def on_share_asked(event: Event[ShareAsked], uow: UnitOfWork) -> ShareAnswered:
    """Decide the receipt; one that has ended stays as it is. The answer says only that it has.

    Raises `ReceiptNotFoundError`.
    """
    taking = uow.part(Taking, Taking)
    receipt = taking.receipts.get(event.data.receipt_id)
    if receipt is None:
        raise ReceiptNotFoundError(f"receipt {event.data.receipt_id} does not exist")
    if receipt.status is ReceiptStatus.ASKED:
        assert taking.now is not None, "the batch is locked before it is handled"
        outcome = take(receipt, taking.distributions[receipt.distribution_id], taking.accounts, taking.now)
        closed = outcome.distribution
        if outcome.share is not None and closed.closed_at is not None:
            uow.publish(DistributionClosed.of(closed), subject=str(closed.id), key=str(closed.account_id))
        taking.end(outcome)
    return ShareAnswered(receipt_id=receipt.id)
