"""Closing distributions that are over, and receipts that nobody began in time."""

from __future__ import annotations

from typing import Final

import structlog
from uuid_utils.compat import uuid7

from services.wallet.domain.accounts import BalanceTooLargeError, post
from services.wallet.domain.distributions import Distribution, give_back
from services.wallet.domain.postings import Posting, balanced
from services.wallet.domain.receipts import KEPT_FOR
from services.wallet.events import DistributionClosed
from services.wallet.handlers.accounts import change
from services.wallet.store import accounts as account_rows
from services.wallet.store import distributions as rows
from services.wallet.store import receipts as receipt_rows
from services.wallet.store import transfers as transfer_rows
from shared.publishing import UnitOfWork

_log = structlog.get_logger(__name__)

CLOSED_MAX: Final = 20
"""Distributions closed in one transaction: at most so many times a thousand shares are read."""
_RECEIPTS_MAX: Final = 1_000


async def close_over(uow: UnitOfWork) -> int:
    """Give back what nobody took of distributions whose time is over, at most twenty; how many were closed.

    It goes back into an account that is frozen, too: it was the giver's all the time.
    """
    over = await rows.lock_over(uow.connection, CLOSED_MAX)
    if not over:
        return 0
    wanted = {key for one in over for key in (one.id, one.account_id)}
    accounts = await account_rows.lock_accounts(uow.connection, wanted)
    now = await rows.read_clock(uow.connection)
    closed = 0
    for one in over:
        ended, left = give_back(one, now)
        if not left:
            uow.tell(rows.CLOSE, rows.closed(ended, None))
        else:
            moves = ((one.id, -left), (one.account_id, left))
            made = balanced(Posting(account, one.currency, amount) for account, amount in moves)
            try:
                accounts |= {after.id: after for after in [post(accounts[p.account_id], p) for p in made]}
            except BalanceTooLargeError:
                _log.warning("distribution.not_given_back", distribution=str(one.id), account=str(one.account_id))
                continue
            _tell(uow, ended, made)
        uow.publish(DistributionClosed.of(ended), subject=str(ended.id), key=str(ended.account_id))
        closed += 1
    return closed


def _tell(uow: UnitOfWork, ended: Distribution, made: tuple[Posting, ...]) -> None:
    movement_id = uuid7()
    uow.tell(rows.CLOSE, rows.closed(ended, movement_id))
    for posting in made:
        uow.tell(transfer_rows.INSERT_POSTING, transfer_rows.posted(movement_id, posting))
        uow.tell(account_rows.CHANGE_ACCOUNT, change(posting.account_id, balance=posting.amount))
    less = {"less_sent": ended.given_back, "less_free": 0}
    uow.tell(account_rows.GIVE_BACK, {"of_account": ended.account_id, "of_day": ended.day, **less})


async def tidy_receipts(uow: UnitOfWork) -> None:
    """End receipts that nobody began in time and forget old ones of nothing, a thousand of each at most."""
    await receipt_rows.give_up_late(uow.connection, _RECEIPTS_MAX)
    await receipt_rows.forget(uow.connection, KEPT_FOR, _RECEIPTS_MAX)
