"""Keeps the wallet's tables: fills them with transfers that are accepted, and checks what contenders did.

All execute the same rows. The wallet also notes each event in its inbox and tells its outbox of two more for each
transfer; the tasks of Celery do not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Self
from uuid import UUID, uuid4

import asyncpg

from bench import committed
from bench.events import WireEvent
from shared.envelope import Envelope
from shared.event import EventData
from shared.migrate import bring_up_to_date

ACCOUNTS = 10
BALANCE = 10**9
_AMOUNT_MAX = 1_000
_HOLD = "hold:{sender_id}"
"""In Redis, for the design that keeps what is waiting there."""

_CLEAR = """
truncate account, member, transfer, usage_day, adjustment, posting, outbox, inbox
"""
_ACCOUNTS = """
insert into account (id, kind, currency, user_id, type, balance, held)
select id, 'member', 'KRW', user_id, 'bench', balance, held
  from unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int8[]) as a (id, user_id, balance, held)
"""
_MEMBERS = "insert into member (user_id, active, version) select id, true, 1 from unnest($1::uuid[]) as m (id)"
_TRANSFERS = """
insert into transfer (id, sender_id, receiver_id, user_id, currency, amount, fee, free, sender_label,
                      receiver_label, day, status, requested_at)
select id, sender_id, receiver_id, user_id, 'KRW', amount, 0, false, '', '', current_date, 'pending',
       clock_timestamp()
  from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int8[])
       as t (id, sender_id, receiver_id, user_id, amount)
"""
_PROBLEMS = {
    "transfers not completed": "select count(*) from transfer where status <> 'completed'",
    "transfers without two postings that sum to zero": """
        select count(*) from (select t.id from transfer t left join posting p on p.movement_id = t.id
                               group by t.id having count(*) <> 2 or sum(p.amount) <> 0) as wrong
    """,
    "accounts whose balance is not what it was and its postings, or with a hold": """
        select count(*) from account a
         where kind = 'member'
           and (held <> 0
                or balance <> $1 + (select coalesce(sum(amount), 0) from posting where account_id = a.id))
    """,
}


class TransferRequested(EventData):
    """What the wallet asks of the event by which it executes a transfer; amounts in the minor unit."""

    channel = "transfer"
    event_type = "transfer.requested"

    transfer_id: UUID
    sender_id: UUID
    receiver_id: UUID
    user_id: UUID
    currency: str
    amount: int
    fee: int
    version: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """Transfers that wait to be executed: as events, and by sender what they hold together."""

    events: list[WireEvent]
    held: dict[str, int]


class Ledger:
    """The wallet's database; an async context manager."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def __aenter__(self) -> Self:
        await bring_up_to_date("wallet", self._dsn)
        self._postgres = await asyncpg.connect(self._dsn)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._postgres.close()

    async def accept(self, count: int, *, hot: bool, seed: str) -> Accepted:
        """So many transfers among ten accounts, none of which runs out; `hot`: each from or to one of them."""
        draw = random.Random(seed)  # noqa: S311  a load, no secret
        accounts, users = ([UUID(int=draw.getrandbits(128)) for _ in range(ACCOUNTS)] for _ in range(2))
        rows = []
        for number in range(count):
            sender, receiver = draw.sample(range(ACCOUNTS), 2)
            if hot and 0 not in (sender, receiver):
                sender, receiver = (0, receiver) if number % 2 else (sender, 0)
            rows.append(
                (uuid4(), accounts[sender], accounts[receiver], users[sender], draw.randint(1, _AMOUNT_MAX))
            )
        held = dict.fromkeys(accounts, 0)
        for _, sender_id, _, _, amount in rows:
            held[sender_id] += amount
        async with self._postgres.transaction():
            # The wallet's postings are for good, as a trigger sees to.
            await self._postgres.execute("set local session_replication_role = replica")
            await self._postgres.execute(_CLEAR)
            await self._postgres.execute(_MEMBERS, users)
            await self._postgres.execute(_ACCOUNTS, accounts, users, [BALANCE] * ACCOUNTS, list(held.values()))
            await self._postgres.execute(_TRANSFERS, *(list(column) for column in zip(*rows, strict=True)))
        await self._postgres.execute("vacuum analyze account, transfer")
        await self._postgres.execute("checkpoint")
        return Accepted([_event(*row) for row in rows], {str(key): amount for key, amount in held.items()})

    async def count(self) -> int:
        """How many have ended."""
        return int(await self._postgres.fetchval("select count(*) from transfer where status <> 'pending'"))

    async def rate_per_s(self) -> float:
        """Transfers per second from the first commit to the last; those of the first commit are not counted.

        Raises `BenchError` when all were committed at once.
        """
        return await committed.rate_per_s(self._postgres, "transfer")

    async def problems(self) -> list[str]:
        """What is wrong; empty when each transfer was done once and every balance is right."""
        found = []
        for what, query in _PROBLEMS.items():
            count = await self._postgres.fetchval(query, *([BALANCE] if "$1" in query else []))
            found += [f"{count} {what}"] if count else []
        return found


def hold_key(sender_id: UUID | str) -> str:
    """Where Redis has what a sender's waiting transfers hold together."""
    return _HOLD.format(sender_id=sender_id)


def _event(transfer_id: UUID, sender_id: UUID, receiver_id: UUID, user_id: UUID, amount: int) -> WireEvent:
    event = Envelope(
        source="/services/wallet",
        type=TransferRequested.event_type,
        subject=str(transfer_id),
        partitionkey=str(sender_id),
        dataschema=TransferRequested.schema_uri(),
        data=TransferRequested(
            transfer_id=transfer_id,
            sender_id=sender_id,
            receiver_id=receiver_id,
            user_id=user_id,
            currency="KRW",
            amount=amount,
            fee=0,
            version=1,
        ).model_dump(mode="json"),
    )
    return WireEvent(str(transfer_id), str(sender_id), event.encode())
