"""Who asks the wallet: members with accounts and sessions, and a distribution that is there for as many as ask.

They are put into its tables as they would be by its own use cases, and what was done is checked there.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Self
from uuid import UUID

import asyncpg

from bench.asking import Asked
from bench.ledger import ACCOUNTS, BALANCE
from shared.migrate import bring_up_to_date

GATEWAY_TOKEN = "of the bench's gateway"  # noqa: S105  of a database that is gone in a minute
SHARE = 100
"""Of the currency's minor unit: what everybody receives."""
_ROOM, _TOKEN = "bench", "bench234"
_AMOUNT_MAX = 1_000
_LIMIT = 10**12
_COOKIE = "tandem_session"

_CLEAR = """
truncate account, member, transfer, usage_day, adjustment, posting, outbox, inbox, distribution,
         distribution_share, receipt, session, sign_in, idempotency_key
"""
_MEMBERS = "insert into member (user_id, active, version) select id, true, 1 from unnest($1::uuid[]) as m (id)"
_ACCOUNTS = """
insert into account (id, kind, currency, user_id, type, balance, held, limit_one_time, limit_daily)
select id, 'member', 'KRW', user_id, 'bench', $3, held, $4, $4
  from unnest($1::uuid[], $2::uuid[], $5::int8[]) as a (id, user_id, held)
"""
_POT = "insert into account (id, kind, currency, balance) values ($1, 'distribution', 'KRW', $2)"
_DISTRIBUTION = """
insert into distribution (id, token, room_id, giver_id, account_id, currency, amount, people, split, day,
                          opened_at, closes_at)
values ($1, $2, $3, $4, $5, 'KRW', $6, $7, 'even', current_date, clock_timestamp(),
        clock_timestamp() + interval '10 minutes')
"""
_SHARES = """
insert into distribution_share (distribution_id, number, amount)
select $1, number, $3 from generate_series(0, $2 - 1) as number
"""
_SIGN_INS = """
insert into sign_in (name, role, user_id, password_hash)
select user_id::text, 'member', user_id, '-' from unnest($1::uuid[]) as s (user_id)
"""
_SESSIONS = """
insert into session (token_sha256, name, expires_at)
select token_sha256, user_id::text, clock_timestamp() + interval '1 hour'
  from unnest($1::uuid[], $2::bytea[]) as s (user_id, token_sha256)
"""
_PROBLEMS = {
    "shares nobody has": "select count(*) from distribution_share where receiver_id is null",
    "accounts without one share": """
        select count(*) from account a join distribution d on d.giver_id <> a.user_id
         where a.balance <> d.amount / d.people
            or a.balance <> (select coalesce(sum(p.amount), 0) from posting p where p.account_id = a.id)
    """,
    "movements that do not sum to zero": """
        select count(*)
          from (select from posting group by movement_id having count(*) <> 2 or sum(amount) <> 0) as wrong
    """,
}


@dataclass(frozen=True, slots=True)
class _Member:
    user_id: UUID
    account_id: UUID


class People:
    """The wallet's database, as those need it who ask over HTTP; an async context manager."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def __aenter__(self) -> Self:
        await bring_up_to_date("wallet", self._dsn)
        self._postgres = await asyncpg.connect(self._dsn)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._postgres.close()

    async def who_receive(self, count: int, seed: str) -> list[Asked]:
        """So many members of a room each ask once for a share of the same distribution, which has one for each."""
        draw = random.Random(seed)  # noqa: S311  a load, no secret
        giver, *others = _members(draw, count + 1)
        pot = UUID(int=draw.getrandbits(128))
        async with self._postgres.transaction():
            await self._open([giver, *others], 0)
            await self._postgres.execute(_POT, pot, count * SHARE)
            given = (pot, _TOKEN, _ROOM, giver.user_id, giver.account_id, count * SHARE, count)
            await self._postgres.execute(_DISTRIBUTION, *given)
            await self._postgres.execute(_SHARES, pot, count, SHARE)
        await self._settle_down()
        told = {"x-gateway-token": GATEWAY_TOKEN, "x-room-id": _ROOM}
        return [
            Asked(
                path="/receive",
                headers={**told, "x-user-id": str(one.user_id), "idempotency-key": "k"},
                body={"token": _TOKEN},
            )
            for one in others
        ]

    async def who_send(self, count: int, seed: str, *, held: bool) -> list[Asked]:
        """Members who are signed in ask for so many transfers among ten accounts, none of which runs out.

        With `held` the accounts hold what will be sent already, for a design that has its holds elsewhere.
        """
        draw = random.Random(seed)  # noqa: S311
        members = _members(draw, ACCOUNTS)
        tokens = {one.user_id: f"{draw.getrandbits(128):032x}" for one in members}
        pairs = [draw.sample(members, 2) for _ in range(count)]
        amounts = [draw.randint(1, _AMOUNT_MAX) for _ in range(count)]
        holds = dict.fromkeys(members, 0)
        for (sender, _), amount in zip(pairs, amounts, strict=True):
            holds[sender] += amount if held else 0
        async with self._postgres.transaction():
            await self._open(members, BALANCE, list(holds.values()))
            await self._postgres.execute(_SIGN_INS, list(tokens))
            hashes = [hashlib.sha256(token.encode()).digest() for token in tokens.values()]
            await self._postgres.execute(_SESSIONS, list(tokens), hashes)
        await self._settle_down()
        return [
            Asked(
                path="/transfers",
                headers={"cookie": f"{_COOKIE}={tokens[sender.user_id]}", "idempotency-key": str(number)},
                body={
                    "sender_id": str(sender.account_id),
                    "receiver_id": str(receiver.account_id),
                    "amount": amount,
                },
            )
            for number, ((sender, receiver), amount) in enumerate(zip(pairs, amounts, strict=True))
        ]

    async def problems_of_receiving(self) -> list[str]:
        """What is wrong; empty when everybody has one share, and the ledger is right."""
        found = []
        for what, query in _PROBLEMS.items():
            count = await self._postgres.fetchval(query)
            found += [f"{count} {what}"] if count else []
        return found

    async def _open(self, members: list[_Member], balance: int, held: list[int] | None = None) -> None:
        """Nothing but these members, each with an account."""
        # The wallet's postings are for good, as a trigger sees to.
        await self._postgres.execute("set local session_replication_role = replica")
        await self._postgres.execute(_CLEAR)
        users, accounts = ([getattr(one, name) for one in members] for name in ("user_id", "account_id"))
        await self._postgres.execute(_MEMBERS, users)
        await self._postgres.execute(_ACCOUNTS, accounts, users, balance, _LIMIT, held or [0] * len(members))

    async def _settle_down(self) -> None:
        await self._postgres.execute("vacuum analyze account, member, distribution, distribution_share")
        await self._postgres.execute("checkpoint")


def _members(draw: random.Random, count: int) -> list[_Member]:
    return [_Member(UUID(int=draw.getrandbits(128)), UUID(int=draw.getrandbits(128))) for _ in range(count)]
