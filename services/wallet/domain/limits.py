"""Limits: for one transfer, for a day of Asia/Seoul, over all accounts of a user; exceptions that end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

DAY_ZONE: Final = "Asia/Seoul"


class LimitKind(StrEnum):
    ONE_TIME = "one_time"
    DAILY = "daily"


@dataclass(frozen=True, slots=True)
class Limits:
    """What may leave an account in one transfer and in one day, without fees, in its currency's minor unit."""

    one_time: int
    daily: int


@dataclass(frozen=True, slots=True)
class AccountType:
    """A kind of account that the house offers, with the limits of those that have none of their own."""

    name: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class LimitException:
    """Another limit than the account's own, from `granted_at` until just before `ends_at`."""

    kind: LimitKind
    amount: int
    granted_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """As much of a user as the wallet needs.

    `limit_total` is what may leave all the user's accounts in a day, without fees; None is no such limit.
    """

    user_id: UUID
    active: bool = True
    limit_total: int | None = None
    free_transfers: int = 0
    """How many transfers cost no fee, in a day of Asia/Seoul."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What is sent today, pending or completed: by the account, by all the user's; and how many were free."""

    sent_by_account: int = 0
    sent_by_user: int = 0
    free_transfers: int = 0


def day_of(moment: datetime) -> date:
    """The day of Asia/Seoul that an aware `moment` is in: what daily limits count in."""
    assert moment.tzinfo is not None, "a moment without a zone is in no day"
    return moment.astimezone(ZoneInfo(DAY_ZONE)).date()


def limits_at(own: Limits, exceptions: Iterable[LimitException], now: datetime) -> Limits:
    """The limits at `now`: those of the account, but where exceptions are in force, of the newest of them."""
    for exception in sorted(exceptions, key=lambda one: one.granted_at):
        if exception.granted_at <= now < exception.ends_at:
            own = replace(own, **{exception.kind.value: exception.amount})
    return own
