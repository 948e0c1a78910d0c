"""The use cases of who gives: opening a distribution, and looking at it."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass, replace
from uuid import UUID

from uuid_utils.compat import uuid7

from services.wallet.domain import quotes
from services.wallet.domain.accounts import AccountKind, AccountNotSaidError, post
from services.wallet.domain.distributions import (
    Distribution,
    DistributionNotFoundError,
    Split,
    new_token,
    shown_to,
    split_in,
)
from services.wallet.domain.fees import FREE
from services.wallet.domain.limits import day_of
from services.wallet.domain.postings import Posting, balanced
from services.wallet.handlers.accounts import change
from services.wallet.handlers.transfers import find_sender
from services.wallet.store import accounts as account_rows
from services.wallet.store import distributions as rows
from services.wallet.store import transfers as transfer_rows
from shared.errors import TransientError
from shared.publishing import UnitOfWork

_TOKENS_TRIED_MAX = 10
_sample = random.SystemRandom().sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Gift:
    """What the user wants to scatter in the room; without `account_id`, from the only account."""

    user_id: UUID
    room_id: str
    amount: int
    people: int
    split: Split
    account_id: UUID | None = None


async def open_distribution(uow: UnitOfWork, gift: Gift) -> Distribution:
    """Have the whole amount leave the giver's account into the distribution's, and split it.

    It counts as sent, without a fee. Raises `TooFewUnitsError`, `AccountNotSaidError`, `AccountNotFoundError`,
    `AccountFrozenError`, `MemberInactiveError`, `LimitExceededError`, `InsufficientFundsError`.
    """
    shares = split_in(gift.split, gift.amount, gift.people, _sample)
    account_id = gift.account_id or await _only_account(uow, gift.user_id)
    now = await rows.read_clock(uow.connection)
    sender = await find_sender(uow, gift.user_id, account_id, now, lock=True)
    quotes.require_allowed(sender, quotes.quote(sender, gift.amount, FREE, now))
    opened = Distribution(
        id=uuid7(),
        token=new_token(secrets.choice),
        room_id=gift.room_id,
        giver_id=gift.user_id,
        account_id=account_id,
        currency=sender.account.currency,
        amount=gift.amount,
        people=gift.people,
        split=gift.split,
        day=day_of(now),
        opened_at=now,
        shares=shares,
    )
    made = balanced(
        Posting(account, opened.currency, amount)
        for account, amount in ((account_id, -gift.amount), (opened.id, gift.amount))
    )
    post(sender.account, made[0])
    opened = await _with_own_token(uow, opened)
    _tell(uow, opened, made)
    return opened


async def get_distribution(uow: UnitOfWork, room_id: str, token: str, user_id: UUID) -> Distribution:
    """The giver's own, with all its shares, for seven days. Raises `DistributionNotFoundError`."""
    found = await rows.find_of_giver(uow.connection, room_id, token, user_id)
    if found is None:
        raise DistributionNotFoundError(f"there is no distribution {token} of this user in this room")
    return shown_to(found, user_id, await rows.read_clock(uow.connection))


async def _only_account(uow: UnitOfWork, user_id: UUID) -> UUID:
    owned = await account_rows.list_accounts(uow.connection, user_id)
    if len(owned) != 1:
        raise AccountNotSaidError(f"say from which account: user {user_id} has {len(owned)}")
    return owned[0].id


async def _with_own_token(uow: UnitOfWork, opened: Distribution) -> Distribution:
    """It is written down, with a token that no other open one in its room has."""
    for _ in range(_TOKENS_TRIED_MAX):
        if await rows.insert_distribution(uow.connection, opened):
            return opened
        opened = replace(opened, token=new_token(secrets.choice))
    raise TransientError(f"{_TOKENS_TRIED_MAX} tokens in a row are taken in this room")


def _tell(uow: UnitOfWork, opened: Distribution, made: tuple[Posting, ...]) -> None:
    own = {"id": opened.id, "kind": AccountKind.DISTRIBUTION.value, "currency": opened.currency}
    uow.tell(account_rows.INSERT_ACCOUNT, {**own, "user_id": None, "type": None})
    for share in rows.inserted_shares(opened):
        uow.tell(rows.INSERT_SHARE, share)
    for posting in made:
        uow.tell(transfer_rows.INSERT_POSTING, transfer_rows.posted(opened.id, posting))
        uow.tell(account_rows.CHANGE_ACCOUNT, change(posting.account_id, balance=posting.amount))
    uow.tell(
        account_rows.USE,
        {
            "account_id": opened.account_id,
            "day": opened.day,
            "user_id": opened.giver_id,
            "sent": opened.amount,
            "free_transfers": 0,
        },
    )
