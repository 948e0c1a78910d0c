"""A room full of members who all ask at once for one distribution, each again with its key until it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from experiment.clock import until
from experiment.side import StalledError
from faults.distributions.checker import Given
from faults.distributions.client import DistributionClient
from faults.distributions.side import PAUSE_S, DistributionSide
from faults.scene import PATIENCE_S
from faults.wallet.accounts import wallet_url
from faults.wallet.members import open_members

MEMBERS = 1_500
SHARES = 1_000
"""As many as a distribution may have."""
AMOUNT = 100_000
"""In minor units."""
AT_ONCE = 200
"""So many clients ask at a time, each for one member after the other."""
PATIENCE_FOR_ALL_S = 480.0
"""From the first request until all are told, through all that is broken meanwhile: less than the ten minutes for
which a distribution is open."""
_POLL_S = 0.02


class CrowdClient(DistributionClient):
    """A client with a connection for each who asks at a time."""

    connections_max = AT_ONCE


@dataclass(slots=True)
class Crowd:
    """Asks for all of them. `told` are those who were told how it ended."""

    side: DistributionSide
    people: int = SHARES
    amount: int = AMOUNT
    at_once: int = AT_ONCE
    patience_s: float = PATIENCE_FOR_ALL_S
    told: set[UUID] = field(default_factory=set)
    _members: list[UUID] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many ask: the members, and who gives."""
        return len(self._members) + 1

    async def gather(self, members: int = MEMBERS) -> None:
        """Have so many members be there, each with an account."""
        self._members = [uuid4() for _ in range(members)]
        await open_members(self.side.side, self._members)

    async def ask(self) -> None:
        """Give, and have all ask, who gives too, until each is told how it ended, or `patience_s` is over.

        Raises `StalledError` when nothing can be given.
        """
        async with CrowdClient(wallet_url(self.side.side)) as client:
            given = Given(self.side.giver(), self.amount, self.people)
            room_id, token = await self.side.give(client, given)
            if token is None:
                raise StalledError(f"nothing is given to the crowd on {self.side.side.broker}")
            users = [given.giver_id, *self._members]
            self.side.told.crowds[room_id] = frozenset(users)
            places = asyncio.Semaphore(self.at_once)
            deadline = asyncio.get_running_loop().time() + self.patience_s

            async def ask(user_id: UUID) -> None:
                async with places:
                    if await self._until_told(client, room_id, user_id, token, deadline):
                        self.told.add(user_id)

            async with asyncio.TaskGroup() as asking:
                for user_id in users:
                    asking.create_task(ask(user_id))

    async def until_told(self, count: int) -> None:
        """Wait until so many are told, and others ask still. Raises `StalledError` when it comes to nothing."""

        async def told() -> bool:
            self.side.side.progress.detail(f"{len(self.told):,} of {self.size:,} told")
            return len(self.told) >= count

        if not await until(told, 3 * PATIENCE_S, _POLL_S):  # others may use the machine, and all ask at once
            raise StalledError(f"{len(self.told)} of the crowd are told how it ended, and not {count}")
        self.require_askers()

    def require_askers(self) -> None:
        """Raises `StalledError` when all are told: whatever is broken now, they are not hit by it."""
        if len(self.told) == self.size:
            raise StalledError("all of the crowd were told how it ended before everything was broken")

    async def _until_told(
        self, client: DistributionClient, room_id: str, user_id: UUID, token: str, deadline: float
    ) -> bool:
        """Ask with one key, again and again; whether an end is told before the deadline."""
        key, clock = str(uuid4()), asyncio.get_running_loop().time
        while clock() < deadline:
            if await self.side.ask(client, (room_id, user_id), token, key):
                return True
            await asyncio.sleep(PAUSE_S)
        return False
