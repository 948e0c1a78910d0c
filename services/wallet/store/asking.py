"""Who asks for shares: what there is for each, and the receipts of those whom nothing stands against.

One statement for all who ask at once, and a transaction by itself: it looks, reads the clock, and writes down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.distributions import Distribution
from services.wallet.domain.receipts import BEGIN_WITHIN, Receipt, Wanted
from services.wallet.store.distributions import (
    KNOWN,
    SHARES,
    distribution_of,
    shares_of,
    shares_of_distribution,
)

# What is written down must be what the rules allow (`handlers.receiving`): whoever changes one changes the other,
# and a difference is an error there. It waits while another transaction inserts a receipt with the same key, and
# then writes nothing; in the order of the keys, so that no two statements wait for each other. Laterals, so that
# each is looked up by an index however old the statistics are.
_ASK = """
    with asked as materialized (
      {asked}
    ), seen as materialized (
      select asked.*, {distribution}, d.closes_at as d_closes_at,
             {shares},
             coalesce(m.active, false) as is_active, a.id as account_id, coalesce(a.frozen, false) as is_frozen,
             known.id as known_id
        from asked
        left join lateral (
          select * from distribution where room_id = asked.room_id and token = asked.token
           order by closed_at is null desc, opened_at desc limit 1) d on true
        {joined}
        left join lateral (select active from member where user_id = asked.user_id limit 1) m on true
        left join lateral (
          select id, frozen from account
           where user_id = asked.user_id and currency = d.currency
             and (asked.wanted_id is null or id = asked.wanted_id)
           order by id limit 1) a on true
        left join lateral (
          select id from receipt
           where user_id = asked.user_id and key = asked.key and status in ('asked', 'received') limit 1
        ) known on true
    ), written as (
      insert into receipt (id, user_id, room_id, token, distribution_id, account_id, currency, key,
                           asked_at, begin_by, status, amount)
      select id, user_id, room_id, token, d_id, account_id, d_currency, key,
             now, now + cast(:begin_within as interval), 'asked', 0
        from seen
       where known_id is null and d_giver_id <> user_id and mine_number is null and free_number is not null
         and d_closed_at is null and now < d_closes_at
         and is_active and account_id is not null and not is_frozen
       order by user_id, key
      on conflict do nothing
      returning id
    )
    select seen.*, written.id is not null as is_written from seen left join written on written.id = seen.id
    """
_DISTRIBUTION = ", ".join(f"d.{one.name} as d_{one.name}" for one in KNOWN)
_ALL = """
      select told.*, clock_timestamp() as now
        from unnest(cast(:ids as uuid[]), cast(:users as uuid[]), cast(:rooms as text[]), cast(:tokens as text[]),
                    cast(:accounts as uuid[]), cast(:keys as text[]))
             as told(id, user_id, room_id, token, wanted_id, key)
    """
# Of arrays PostgreSQL plans it anew each time, since it knows how many there are: more than half of its work.
_ONE = """
      select cast(:id as uuid) as id, cast(:user_id as uuid) as user_id, cast(:room_id as text) as room_id,
             cast(:token as text) as token, cast(:account_id as uuid) as wanted_id, cast(:key as text) as key,
             clock_timestamp() as now
    """
_SEEN = {"distribution": _DISTRIBUTION, "shares": SHARES, "joined": shares_of_distribution("asked.user_id")}
_ASK_FOR_ALL, _ASK_FOR_ONE = [text(_ASK.format(asked=told, **_SEEN)) for told in (_ALL, _ONE)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user wants, and the id of the receipt that is written for it."""

    receipt_id: UUID
    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there was for who asks, `now`; `receipt` where it is written down, `known_id` where its key has one.

    `distribution` is there with the share that the user has and one that is free. `account_id` is where a share
    would go; None where the user has no such account.
    """

    now: datetime
    distribution: Distribution | None
    is_active: bool
    account_id: UUID | None
    is_frozen: bool
    known_id: UUID | None
    receipt: Receipt | None


async def ask(connection: AsyncConnection, asked: Sequence[Asked]) -> list[Seen]:
    """Look what there is for each, in their order, and write a receipt for whom nothing stands against."""
    if len(asked) == 1:  # nearly always, while little happens
        [only] = asked
        return [_seen((await _ask(connection, _ASK_FOR_ONE, _told(only)))[0], only.wanted)]
    wanted = [one.wanted for one in asked]
    parameters = {
        "ids": [one.receipt_id for one in asked],
        "users": [one.user_id for one in wanted],
        "rooms": [one.room_id for one in wanted],
        "tokens": [one.token for one in wanted],
        "accounts": [one.account_id for one in wanted],
        "keys": [one.key for one in wanted],
    }
    seen = {row["id"]: row for row in await _ask(connection, _ASK_FOR_ALL, parameters)}
    return [_seen(seen[one.receipt_id], one.wanted) for one in asked]


async def _ask(
    connection: AsyncConnection, statement: TextClause, told: Mapping[str, object]
) -> Sequence[Mapping[Any, Any]]:
    return (await connection.execute(statement, {**told, "begin_within": BEGIN_WITHIN})).mappings().all()


def _told(one: Asked) -> dict[str, object]:
    wanted = one.wanted
    return {
        "id": one.receipt_id,
        "user_id": wanted.user_id,
        "room_id": wanted.room_id,
        "token": wanted.token,
        "account_id": wanted.account_id,
        "key": wanted.key,
    }


def _seen(row: Mapping[Any, Any], wanted: Wanted) -> Seen:
    return Seen(
        now=row["now"],
        distribution=_found(row, wanted),
        is_active=row["is_active"],
        account_id=row["account_id"],
        is_frozen=row["is_frozen"],
        known_id=row["known_id"],
        receipt=_written(row, wanted) if row["is_written"] else None,
    )


def _found(row: Mapping[Any, Any], wanted: Wanted) -> Distribution | None:
    if row["d_id"] is None:
        return None
    found = distribution_of({column.name: row[f"d_{column.name}"] for column in KNOWN})
    return replace(found, shares=shares_of(row, wanted.user_id))


def _written(row: Mapping[Any, Any], wanted: Wanted) -> Receipt:
    return Receipt(
        id=row["id"],
        user_id=wanted.user_id,
        room_id=wanted.room_id,
        token=wanted.token,
        distribution_id=row["d_id"],
        account_id=row["account_id"],
        currency=row["d_currency"],
        key=wanted.key,
        asked_at=row["now"],
        begin_by=row["now"] + BEGIN_WITHIN,
    )
