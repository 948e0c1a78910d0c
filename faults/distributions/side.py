"""The distributions of one broker's set of services: gives, has more ask than there are shares, and checks all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from uuid import UUID, uuid4

from experiment.clock import until
from experiment.side import Side
from faults.beside import ask_steadily, connected, fewer, patience_s
from faults.distributions.checker import Asker, DistributionFindings, Found, Given, ReceiptFound, Told, check
from faults.distributions.client import DistributionClient
from faults.distributions.found import read
from faults.wallet.accounts import Administrator, wallet_url
from faults.wallet.audit import broken_rules

_USERS = 6
"""One of them gives, all of them ask; the first five have other accounts, too, between which money is sent."""
_PEOPLE = 3
"""Shares of each distribution."""
_PAID_IN = 1_000_000
"""Into the account from which each gives, in minor units: more than is ever given."""
_AMOUNT_MAX = 60
_PER_S = 0.5
"""Distributions a second, each of which all ask for at once."""
_ASKED_AGAIN = 3
"""Every so many-th who has a share asks for it again with the key."""
_ATTEMPTS = 3
PAUSE_S = 1.0
"""Between them; it is what Retry-After says."""
_POLL_S = 0.2

_OPEN = "select count(*) from receipt where status = 'asked'"
_TOLD = """
select count(distinct (event_source, event_id)), array_agg(distinct event_id) filter (where times > 1)
  from (select event_source, event_id, count(*) over (partition by event_source, event_id) as times
          from notification where event_type = 'distribution.closed') as told
"""


@dataclass(slots=True)
class DistributionSide:
    """One side's distributions, in every phase."""

    side: Side
    told: Told = field(default_factory=Told)
    verdict: DistributionFindings = field(default_factory=DistributionFindings)
    """What the last check found."""
    _accounts: dict[UUID, UUID] = field(default_factory=dict)
    """By user, the one from which they give."""
    _links: dict[UUID, UUID] = field(default_factory=dict)
    """Receipts that answers led to and nobody has looked at, with who asked."""
    _number: int = 0
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        # Not with the broker: both sides are asked for the same distributions.
        self._random = Random(f"{self.side.workload.seed}-distributions")  # noqa: S311  a load, no secret

    async def prepare(self) -> None:
        """Open an account for each who gives, and pay in enough. Raises `StalledError` when that fails."""
        async with DistributionClient(wallet_url(self.side)) as client:
            admin = await Administrator.of(self.side, client)
            for user_id in self.side.users[:_USERS]:
                self._accounts[UUID(user_id)] = await admin.open_account(user_id, _PAID_IN)

    # -- load

    async def load(self, enough: asyncio.Event) -> None:
        """Give at a fixed rate until `enough`, and have all ask for shares, whether or not they are answered."""
        async with DistributionClient(wallet_url(self.side)) as client:
            await ask_steadily(lambda: self._distribute(client), _PER_S, enough)

    async def _distribute(self, client: DistributionClient) -> bool:
        """Give, and have everybody ask at once; whether each of them was told how that ended."""
        users = list(self._accounts)
        given = Given(self._random.choice(users), self._random.randint(_PEOPLE, _AMOUNT_MAX), _PEOPLE)
        self._random.shuffle(users)
        room_id, token = await self.give(client, given)
        if token is None:
            return False
        answered = await asyncio.gather(*(self._receive(client, (room_id, user_id), token) for user_id in users))
        return all(answered)

    def giver(self) -> UUID:
        """One of those who have something to give."""
        return self._random.choice(list(self._accounts))

    async def give(self, client: DistributionClient, given: Given) -> tuple[str, str | None]:
        """A new room, and the token of the distribution in it, where one is told in the end."""
        self._number += 1
        room_id, key = f"played-{self._number}", str(uuid4())
        self.told.asked[room_id] = given
        for attempt in range(_ATTEMPTS):
            await asyncio.sleep(PAUSE_S if attempt else 0)
            token = await client.give(room_id, self._accounts[given.giver_id], given, key)
            if token is not None:
                self.told.given.add(room_id)
                return room_id, token
        return room_id, None

    async def _receive(self, client: DistributionClient, asker: Asker, token: str) -> bool:
        """Ask for a share, again with the key where no end is told; whether one is told at last."""
        key = str(uuid4())
        for attempt in range(_ATTEMPTS):
            await asyncio.sleep(PAUSE_S if attempt else 0)
            if await self.ask(client, asker, token, key):
                return True
        return False

    async def ask(self, client: DistributionClient, asker: Asker, token: str, key: str) -> bool:
        """Ask for a share once, and remember what was answered; whether that is how it ended.

        Some who have a share ask for it again with the key.
        """
        room_id, user_id = asker
        answer = await client.receive(room_id, user_id, token, key)
        if answer.link is not None:
            self._links[answer.link] = user_id
        if answer.refusal is not None:
            self.told.refused[asker] = answer.refusal
        if answer.receipt is not None:
            self.told.received[asker] = answer.receipt
            if len(self.told.received) % _ASKED_AGAIN == 0:
                again = await client.receive(room_id, user_id, token, key)
                if again.is_final and again.receipt != answer.receipt:
                    self.told.doubled.append(f"{user_id} in {room_id}")
        return answer.is_final

    # -- check

    async def verify(self) -> DistributionFindings:
        """Wait until all that was asked for has ended, and check it; returns what the check before had not found.

        One more distribution must be given, and all told how their asking ended.
        """
        async with DistributionClient(wallet_url(self.side)) as client:
            is_served = await until(lambda: self._distribute(client), patience_s(self.side), _POLL_S)
            await until(self._ended, patience_s(self.side), _POLL_S)
            await self._follow(client)
        found = await self._found()
        closed = sum(one.closed for one in found.given)
        notices, told_twice = 0, []

        async def all_told() -> bool:
            nonlocal notices, told_twice
            async with connected(self.side, "notification") as connection:
                [(notices, told_twice)] = await connection.fetch(_TOLD)
            return bool(notices >= closed)

        await until(all_told, patience_s(self.side), _POLL_S)
        whole = check(self.told, found, await broken_rules(self.side))
        whole.told_twice = sorted(told_twice or [])
        whole.untold = [*self.verdict.untold, *fewer(notices, closed, len(self.verdict.untold))]
        whole.unserved = [*self.verdict.unserved, *([] if is_served else [f"played-{self._number}"])]
        before, self.verdict = self.verdict, whole
        return whole.since(before)

    async def _ended(self) -> bool:
        async with connected(self.side, "wallet") as connection:
            return bool(await connection.fetchval(_OPEN) == 0)

    async def _follow(self, client: DistributionClient) -> None:
        """Look where links led that answers without an outcome had."""
        followed = await asyncio.gather(*(self._look(client, *link) for link in self._links.items()))
        self.told.linked |= dict(zip(self._links, followed, strict=True))
        self._links.clear()

    async def _look(self, client: DistributionClient, receipt_id: UUID, user_id: UUID) -> ReceiptFound | None:
        """The receipt; None where there is none, or nobody who says so."""
        found: ReceiptFound | None = None

        async def looked() -> bool:
            nonlocal found
            is_answered, found = await client.look(receipt_id, user_id)
            return is_answered

        await until(looked, patience_s(self.side), _POLL_S)
        return found

    async def _found(self) -> Found:
        """All of one moment: what is over may be closed between two queries."""
        async with (
            connected(self.side, "wallet") as connection,
            connection.transaction(isolation="repeatable_read"),
        ):
            return await read(connection.fetch)
