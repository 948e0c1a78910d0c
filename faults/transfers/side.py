"""The money of one broker's set of services: opens accounts, asks for transfers, checks what became of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count
from random import Random
from uuid import UUID, uuid4

import asyncpg

from experiment.clock import until
from experiment.side import Side
from faults.beside import ask_steadily, connected, fewer, patience_s, plain_uuid
from faults.transfers.checker import Asked, Told, TransferFindings, TransferFound, check
from faults.transfers.client import ACCEPTED, REFUSED, CrowdedTransferClient, TransferClient
from faults.wallet.accounts import Administrator, wallet_url
from faults.wallet.audit import broken_rules

_PASSWORD = "open, sesame"  # noqa: S105  for the length of a run, on this machine
_USERS = 5
_ACCOUNTS_EACH = 2
_PAID_IN = 2_000
"""Into each account, in minor units: little enough that some transfers are refused."""
_AMOUNT_MAX = 400
_PER_S = 3.0
"""Transfers a second; half of them to or from one account."""
_ASKED_AGAIN = 5
"""Every so many-th is asked for twice with its key."""
_TAKEN_BACK = 7
"""Every so many-th is taken back at once: it may have been done by then."""
_ATTEMPTS = 2
_PAUSE_S, _PAUSE_MAX_S = 2.0, 10.0
"""Before whoever is one of many asks again, the first time; each further time it is longer by as much."""
_POLL_S = 0.2

_OPEN = "select count(*) from transfer where status = 'pending' and requested_at <= clock_timestamp()"
_FOUND = "select id, sender_id, receiver_id, amount, status from transfer"
_TOLD = """
select count(distinct (event_source, event_id)) filter (where event_type = 'transfer.completed'),
       array_agg(distinct event_id) filter (where times > 1)
  from (select event_source, event_id, event_type, count(*) over (partition by event_source, event_id) as times
          from notification where event_type like 'transfer.%') as told
"""


@dataclass(frozen=True, slots=True)
class _Account:
    id: UUID
    cookie: str
    """The session of whose it is."""


@dataclass(slots=True)
class TransferSide:
    """One side's transfers, in every phase."""

    side: Side
    told: Told = field(default_factory=Told)
    verdict: TransferFindings = field(default_factory=TransferFindings)
    """What the last check found."""
    _accounts: list[_Account] = field(default_factory=list)
    _number: int = 0
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        # Not with the broker: both sides are asked for the same transfers.
        self._random = Random(f"{self.side.workload.seed}-transfers")  # noqa: S311  a load, no secret

    async def prepare(self) -> None:
        """Open accounts of the first users, and pay something in. Raises `StalledError` when that fails."""
        async with TransferClient(wallet_url(self.side)) as client:
            admin = await Administrator.of(self.side, client)
            for number, user_id in enumerate(self.side.users[:_USERS]):
                opened = [await admin.open_account(user_id, _PAID_IN) for _ in range(_ACCOUNTS_EACH)]
                await admin.do("PUT", f"sign-ins/played-{number}", {"user_id": user_id, "password": _PASSWORD})
                cookie = await client.sign_in(f"played-{number}", _PASSWORD)
                self._accounts += [_Account(account_id, cookie) for account_id in opened]

    # -- load

    async def load(self, enough: asyncio.Event) -> None:
        """Ask for transfer after transfer at a fixed rate until `enough`, whether or not they are answered."""
        async with TransferClient(wallet_url(self.side)) as client:
            await ask_steadily(lambda: self._transfer(client), _PER_S, enough)

    async def ask_at_once(self, clients: int, each: int, at_most_s: float) -> None:
        """So many clients ask at once, each for a transfer, and when it is answered for the next, of so many.

        Nobody asks for another, or again with its key, when `at_most_s` is over.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + at_most_s

        async def ask(client: TransferClient) -> None:
            for _ in range(each):
                if clock() < deadline:
                    await self._transfer(client, deadline)

        async with CrowdedTransferClient(wallet_url(self.side)) as client, asyncio.TaskGroup() as asking:
            for _ in range(clients):
                asking.create_task(ask(client))

    async def _transfer(self, client: TransferClient, deadline: float = 0.0) -> bool:
        """Ask for one; whether it was accepted, or refused since there was not enough.

        It is asked for twice at most where there is no answer, and with a `deadline`, by the loop's clock, again
        and again until then.
        """
        self._number += 1
        sender, receiver = self._random.sample(self._accounts, 2)
        if self._random.random() < 0.5 and self._accounts[0] not in (sender, receiver):
            sender, receiver = self._random.choice([(self._accounts[0], receiver), (sender, self._accounts[0])])
        wish = Asked(sender.id, receiver.id, self._random.randint(1, _AMOUNT_MAX))
        key, clock = str(uuid4()), asyncio.get_running_loop().time
        is_open = False
        for attempt in count(1):
            status, transfer_id = await client.transfer(sender.cookie, wish, key)
            if status == ACCEPTED and transfer_id is not None:
                await self._accepted(client, sender, wish, key, transfer_id)
                return True
            if status == REFUSED and not is_open:
                return True
            is_open = True
            if status == REFUSED or (attempt >= _ATTEMPTS and clock() >= deadline):
                break  # refused now, and yet perhaps accepted when nobody heard of it
            await asyncio.sleep(min(_PAUSE_S * attempt, _PAUSE_MAX_S) if deadline else 0)
        self.told.unanswered += 1
        return False

    async def _accepted(
        self, client: TransferClient, sender: _Account, wish: Asked, key: str, transfer_id: UUID
    ) -> None:
        """Remember it; some are asked for again with the key, some are taken back."""
        self.told.acknowledged[transfer_id] = wish
        number = len(self.told.acknowledged)
        if number % _ASKED_AGAIN == 0:
            _, other_id = await client.transfer(sender.cookie, wish, key)
            if other_id not in (None, transfer_id):
                self.told.doubled.append(str(other_id))
        if number % _TAKEN_BACK == 0:
            self.told.taking_back.add(transfer_id)
            if await client.take_back(sender.cookie, transfer_id):
                self.told.taken_back.add(transfer_id)

    # -- check

    async def verify(self) -> TransferFindings:
        """Wait until all that was asked for has ended, and check it; returns what the check before had not found.

        One more transfer must be answered: a wallet that takes none any more would have none to lose.
        """
        async with TransferClient(wallet_url(self.side)) as client:
            is_served = await until(lambda: self._transfer(client), patience_s(self.side), _POLL_S)

        async def ended() -> bool:
            [row] = await self._query("wallet", _OPEN)
            return bool(row[0] == 0)

        await until(ended, patience_s(self.side), _POLL_S)
        rows = [
            TransferFound(plain_uuid(id_), Asked(plain_uuid(sender_id), plain_uuid(receiver_id), amount), status)
            for id_, sender_id, receiver_id, amount, status in await self._query("wallet", _FOUND)
        ]
        completed = sum(one.status == "completed" for one in rows)
        notices, told_twice = 0, []

        async def all_told() -> bool:
            nonlocal notices, told_twice
            [(notices, told_twice)] = await self._query("notification", _TOLD)
            return bool(notices >= completed)

        await until(all_told, patience_s(self.side), _POLL_S)
        whole = check(self.told, rows, await broken_rules(self.side))
        whole.told_twice = sorted(told_twice or [])
        whole.untold = [*self.verdict.untold, *fewer(notices, completed, len(self.verdict.untold))]
        whole.unserved = [*self.verdict.unserved, *([] if is_served else [f"transfer {self._number}"])]
        before, self.verdict = self.verdict, whole
        return whole.since(before)

    async def _query(self, service: str, statement: str) -> list[asyncpg.Record]:
        """Rows of a service's database."""
        async with connected(self.side, service) as connection:
            return list(await connection.fetch(statement))
