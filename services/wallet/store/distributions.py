"""Distributions and their shares: opening, looking up for who gives, locking for who asks, closing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.distributions import Distribution, Share, Split
from services.wallet.store.tables import distribution, distribution_share

INSERT_SHARE = insert(distribution_share)
CLOSE = (
    update(distribution)
    .where(distribution.c.id == bindparam("closed_id"), distribution.c.closed_at.is_(None))
    .values(
        closed_at=bindparam("new_closed_at", type_=DateTime(timezone=True)),
        given_back=bindparam("new_given_back", type_=BigInteger),
        given_back_id=bindparam("new_given_back_id", type_=Uuid),
    )
)
# Returns no row where an open one in this room has this token.
_INSERT = postgresql.insert(distribution).on_conflict_do_nothing().returning(distribution.c.id)
_NOW = select(func.clock_timestamp())
KNOWN = tuple(distribution.c[name] for name in Distribution.__dataclass_fields__ if name in distribution.c)
"""The columns of which a distribution is made."""
# The open one, or else the newest: of closed ones several may have had this token.
_FIND = (
    select(*KNOWN)
    .where(distribution.c.room_id == bindparam("in_room"), distribution.c.token == bindparam("with_token"))
    .order_by(distribution.c.closed_at.is_(None).desc(), distribution.c.opened_at.desc())
    .limit(1)
)
_FIND_OF_GIVER = _FIND.where(distribution.c.giver_id == bindparam("of_giver"))
_LOCK = (
    select(*KNOWN)
    .where(distribution.c.id == func.any(bindparam("wanted", type_=postgresql.ARRAY(Uuid))))
    .order_by(distribution.c.id)
    .with_for_update(key_share=True)
)
_LOCK_OVER = (
    select(*KNOWN)
    .where(distribution.c.closed_at.is_(None), distribution.c.closes_at <= func.clock_timestamp())
    .order_by(distribution.c.id)
    .limit(bindparam("most"))
    .with_for_update(key_share=True, skip_locked=True)
)
# What each of these users has, and as many free shares as there are who ask; of each distribution.
_SHARES_FOR = text(
    """
    select s.distribution_id, s.amount, s.receiver_id, s.number, s.taken_at
      from distribution_share s
     where s.distribution_id = any(:ids) and s.receiver_id = any(:users)
    union all
    select s.distribution_id, s.amount, s.receiver_id, s.number, s.taken_at
      from unnest(cast(:ids as uuid[]), cast(:counts as integer[])) as told(id, asking)
     cross join lateral (select * from distribution_share
                          where distribution_id = told.id and receiver_id is null
                          order by number limit told.asking) s
     order by number
    """
).bindparams(bindparam("ids", type_=postgresql.ARRAY(Uuid)), bindparam("users", type_=postgresql.ARRAY(Uuid)))
_SHARES = select(distribution_share).order_by(distribution_share.c.number)
_ALL_SHARES = _SHARES.where(distribution_share.c.distribution_id == bindparam("of"))
_FREE_SHARES = _SHARES.where(
    distribution_share.c.distribution_id == func.any(bindparam("of_all", type_=postgresql.ARRAY(Uuid))),
    distribution_share.c.receiver_id.is_(None),
)


async def read_clock(connection: AsyncConnection) -> datetime:
    """The database's clock at this moment, not that of when the transaction began."""
    now: datetime = (await connection.execute(_NOW)).scalar_one()
    return now


async def insert_distribution(connection: AsyncConnection, new: Distribution) -> bool:
    """Write down a new one, without its shares; False where an open one in this room has its token."""
    row = {column.name: getattr(new, column.name) for column in KNOWN}
    row |= {"split": new.split.value, "closes_at": new.closes_at}
    return (await connection.execute(_INSERT, row)).first() is not None


def inserted_shares(new: Distribution) -> list[dict[str, Any]]:
    """The rows for `INSERT_SHARE`."""
    return [{"distribution_id": new.id, "number": share.number, "amount": share.amount} for share in new.shares]


def closed(ended: Distribution, given_back_id: UUID | None) -> dict[str, Any]:
    """The row for `CLOSE`; `given_back_id` is the movement, where something went back."""
    return {
        "closed_id": ended.id,
        "new_closed_at": ended.closed_at,
        "new_given_back": ended.given_back,
        "new_given_back_id": given_back_id,
    }


async def find_of_giver(
    connection: AsyncConnection, room_id: str, token: str, giver_id: UUID
) -> Distribution | None:
    """The giver's distribution, with all its shares."""
    wanted = {"in_room": room_id, "with_token": token, "of_giver": giver_id}
    row = (await connection.execute(_FIND_OF_GIVER, wanted)).mappings().first()
    if row is None:
        return None
    rows = (await connection.execute(_ALL_SHARES, {"of": row["id"]})).mappings()
    return replace(distribution_of(row), shares=tuple(_share(share) for share in rows))


async def lock_for(connection: AsyncConnection, askers: Mapping[UUID, Sequence[UUID]]) -> dict[UUID, Distribution]:
    """Those of the distributions that there are, each with what its askers have and may get.

    Nobody else takes from them, or closes them, until the transaction ends.
    """
    rows = (await connection.execute(_LOCK, {"wanted": sorted(askers)})).mappings()
    return await _with_shares_for(connection, [distribution_of(row) for row in rows], askers)


async def lock_over(connection: AsyncConnection, most: int) -> list[Distribution]:
    """Distributions whose ten minutes are over and that are not closed, with their free shares, by their ids.

    Those that somebody else closes at this moment are left to him.
    """
    rows = (await connection.execute(_LOCK_OVER, {"most": most})).mappings()
    over = [distribution_of(row) for row in rows]
    free: dict[UUID, list[Share]] = {one.id: [] for one in over}
    for row in (await connection.execute(_FREE_SHARES, {"of_all": list(free)})).mappings() if free else ():
        free[row["distribution_id"]].append(_share(row))
    return [replace(one, shares=tuple(free[one.id])) for one in over]


async def _with_shares_for(
    connection: AsyncConnection, found: Iterable[Distribution], askers: Mapping[UUID, Sequence[UUID]]
) -> dict[UUID, Distribution]:
    by_id = {one.id: one for one in found}
    shares: dict[UUID, list[Share]] = {key: [] for key in by_id}
    parameters = {
        "ids": list(by_id),
        "users": sorted({user for key in by_id for user in askers[key]}),
        "counts": [len(askers[key]) for key in by_id],
    }
    for row in (await connection.execute(_SHARES_FOR, parameters)).mappings():
        shares[row["distribution_id"]].append(_share(row))
    return {key: replace(one, shares=tuple(shares[key])) for key, one in by_id.items()}


def _share(row: Mapping[Any, Any]) -> Share:
    return Share(row["amount"], row["receiver_id"], row["number"], row["taken_at"])


SHARES = """
             mine.number as mine_number, mine.amount as mine_amount, mine.taken_at as mine_taken_at,
             free.number as free_number, free.amount as free_amount
"""
"""The columns that `shares_of` reads, of what `shares_of_distribution` joins."""


def shares_of_distribution(user_id: str) -> str:
    """The joins, to the distribution `d`, of the share that the user in the column `user_id` has, and of the next
    one that is free."""
    return f"""
        left join lateral (
          select number, amount, taken_at from distribution_share
           where distribution_id = d.id and receiver_id = {user_id} limit 1) mine on true
        left join lateral (
          select number, amount from distribution_share
           where distribution_id = d.id and receiver_id is null order by number limit 1) free on true
    """  # noqa: S608  a column's name


def shares_of(row: Mapping[Any, Any], user_id: UUID) -> tuple[Share, ...]:
    """The share that the user has and the next one that is free, of a row with `mine_…` and `free_…`; nulls where
    there is none."""
    shares = []
    if row["mine_number"] is not None:
        shares.append(Share(row["mine_amount"], user_id, row["mine_number"], row["mine_taken_at"]))
    if row["free_number"] is not None:
        shares.append(Share(row["free_amount"], None, row["free_number"]))
    return tuple(shares)


def distribution_of(row: Mapping[Any, Any]) -> Distribution:
    """The distribution of a row of `KNOWN`, without shares."""
    return Distribution(**{**row, "split": Split(row["split"])})
