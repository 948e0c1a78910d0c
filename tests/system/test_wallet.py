"""Money on the whole system, on both brokers: what is accepted is done once, while the worker is slow."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from redis.asyncio import Redis

from tests.system.house import House
from tests.system.running_system import RunningSystem, eventually

pytestmark = pytest.mark.timeout(400)
"""Of each test, whichever of them starts the system."""

NEW_MEMBERS = """
with new as (insert into member (user_id, active, version)
             select gen_random_uuid(), true, 1 from generate_series(1, $1) returning user_id)
insert into account (id, kind, currency, user_id, type)
select gen_random_uuid(), 'member', 'KRW', user_id, 'plain' from new returning user_id
"""


async def received(house: House, user_id: str, wanted: dict[str, str]) -> httpx.Response:
    """On a loaded machine there may be no answer in time: then the same is asked again, with the same key."""

    async def answered() -> httpx.Response | None:
        try:
            answer = await house.in_room(user_id, "POST", "/receive", wanted, "k")
        except httpx.TransportError:
            return None
        return answer if answer.status_code < 500 else None

    answer: httpx.Response = await eventually(answered, f"{user_id} has an answer")
    return answer


async def test_of_twenty_transfers_the_ten_that_can_be_paid_are_done_and_ten_refused_at_once(
    system: RunningSystem, house: House
) -> None:
    ada, bob = await system.register("Ada"), await system.register("Bob")
    sender, receiver = await house.account(ada, 1_000), await house.account(bob, 0)
    client = await house.member(ada)
    body = {"sender_id": sender, "receiver_id": receiver, "amount": 100, "sender_label": "rent"}

    async def ask(number: int) -> httpx.Response:
        """On a loaded machine there may be no answer in time: then the same is asked again, with the same key."""

        async def answered() -> httpx.Response | None:
            try:
                answer = await client.post("/transfers", json=body, headers={"idempotency-key": f"k-{number}"})
            except httpx.TransportError:
                return None
            return answer if answer.status_code < 500 else None

        answer: httpx.Response = await eventually(answered, f"transfer {number} has an answer")
        return answer

    answers = await asyncio.gather(*(ask(number) for number in range(20)))
    assert sorted(answer.status_code for answer in answers) == [202] * 10 + [409] * 10
    for refused in answers:
        if refused.status_code == 409:
            assert refused.json()["type"].endswith("insufficient-funds")
            assert f"account {sender} has 0 available" in refused.json()["detail"]
    accepted = [answer.headers["location"] for answer in answers if answer.status_code == 202]
    assert await house.audit() == 0, "also in the middle of it"

    async def states() -> list[str]:
        return [(await client.get(path)).json()["status"] for path in accepted]

    async def done() -> bool:
        return await states() == ["completed"] * 10

    await eventually(done, "all ten are completed")
    account = (await client.get(f"/accounts/{sender}")).json()
    assert (account["balance"], account["held"], account["available"]) == (0, 0, 0)
    entries = (await (await house.member(bob)).get(f"/accounts/{receiver}/entries")).json()["items"]
    assert [entry["amount"] for entry in entries] == [100] * 10
    assert await house.audit() == 0
    for user_id, told in ((ada, "transfer.completed"), (bob, "transfer.received")):
        assert Counter(await system.until_told(11, user_id=user_id)) == {"user.registered": 1, told: 10}


PEOPLE = 10
GUESTS = 2 * PEOPLE


@dataclass
class Party:
    """A distribution of ten, and the twenty who ask for a share of it."""

    house: House
    giver: str
    guests: list[str]
    path: str
    wanted: dict[str, str]
    links: list[tuple[str, str]] = field(default_factory=list)
    """Of answers without an outcome: who was to look where."""

    @classmethod
    async def of(cls, system: RunningSystem, house: House) -> Party:
        giver, *guests = await asyncio.gather(
            *(system.register(f"Guest {number}") for number in range(GUESTS + 1))
        )
        await asyncio.gather(house.account(giver, 1_000), *(house.account(user, 0) for user in guests))
        opened = await house.in_room(giver, "POST", "/distributions", {"amount": 1_000, "people": PEOPLE})
        assert opened.status_code == 201, opened.text
        return cls(house, giver, guests, opened.headers["location"], {"token": opened.json()["token"]})

    async def all_ask(self) -> dict[str, httpx.Response]:
        """At once, each until there is an outcome."""
        return dict(
            zip(self.guests, await asyncio.gather(*(self._asks(user) for user in self.guests)), strict=True)
        )

    async def _asks(self, user_id: str) -> httpx.Response:
        """Without an answer in time the same is asked again, with the same key."""

        async def answered() -> httpx.Response | None:
            try:
                answer = await self.ask(user_id)
            except httpx.TransportError:
                return None
            if answer.status_code < 500:
                return answer
            if "link" in answer.headers:
                self.links.append((user_id, answer.headers["link"].partition(">")[0].removeprefix("<")))
            return None

        answer: httpx.Response = await eventually(answered, f"{user_id} has an answer")
        return answer

    async def ask(self, user_id: str) -> httpx.Response:
        return await self.house.in_room(user_id, "POST", "/receive", self.wanted, "k")

    async def ten_have_a_share_each(self, answers: dict[str, httpx.Response]) -> None:
        """And all agree about that: who was answered, the giver's view, the links, the same key, and the audit."""
        assert sorted(answer.status_code for answer in answers.values()) == [200] * PEOPLE + [409] * PEOPLE
        taken = {user: one.json()["amount"] for user, one in answers.items() if one.status_code == 200}
        for refused in answers.values():
            assert refused.status_code == 200 or refused.json()["type"].endswith("nothing-left")
        assert sum(taken.values()) == 1_000
        for user_id in list(taken)[:2]:
            again = await self.ask(user_id)
            assert (again.json()["amount"], again.headers["idempotent-replayed"]) == (taken[user_id], "true")
            receipt = await self.house.in_room(user_id, "GET", again.headers["location"])
            assert receipt.json() == again.json()
        for user_id, path in self.links:
            receipt = await self.house.in_room(user_id, "GET", path)
            if receipt.status_code == 404:  # it was not even written down in time
                continue
            assert receipt.json()["status"] in {"received", "refused", "not_begun"}
            assert receipt.json()["amount"] in {0, taken.get(user_id)}
        shown = (await self.house.in_room(self.giver, "GET", self.path)).json()
        assert {share["user_id"]: share["amount"] for share in shown["shares"]} == taken
        assert (shown["taken"], shown["given_back"], shown["closed_at"] is None) == (1_000, 0, False)
        assert await self.house.audit() == 0


async def test_a_distribution_of_ten_that_twenty_ask_for_at_once_is_ten_shares_and_ten_hear_of_nothing_left(
    system: RunningSystem, house: House
) -> None:
    party = await Party.of(system, house)
    await party.ten_have_a_share_each(await party.all_ask())
    told = Counter(await system.until_told(2, user_id=party.giver))
    assert told == {"user.registered": 1, "distribution.closed": 1}


async def test_a_hundred_shares_that_a_hundred_and_fifty_ask_for_at_once_are_each_received_once(
    system: RunningSystem, house: House
) -> None:
    """Those who ask are put into the wallet as its worker would: registering them is another test."""
    giver = await system.register("Giver")
    await house.account(giver, 2_000)
    rows = await system.rows("wallet", NEW_MEMBERS, 150)
    users = [str(row["user_id"]) for row in rows]
    opened = await house.in_room(giver, "POST", "/distributions", {"amount": 2_000, "people": 100})
    wanted = {"token": opened.json()["token"]}
    answers = await asyncio.gather(*(received(house, user_id, wanted) for user_id in users))
    assert Counter(answer.status_code for answer in answers) == {200: 100, 409: 50}
    assert all(one.json()["type"].endswith("nothing-left") for one in answers if one.status_code == 409)
    taken = {
        user_id: answer.json()["amount"]
        for user_id, answer in zip(users, answers, strict=True)
        if answer.status_code == 200
    }
    assert (sum(taken.values()), min(taken.values()) >= 1) == (2_000, True)
    shown = (await house.in_room(giver, "GET", opened.headers["location"])).json()
    assert {share["user_id"]: share["amount"] for share in shown["shares"]} == taken
    assert await house.audit() == 0


async def test_so_it_is_when_the_worker_is_killed_in_the_middle_of_them_and_redis_is_flushed(
    system: RunningSystem, house: House
) -> None:
    """Who asks and who decides are processes of their own here; the first that decides dies before it commits."""
    party = await Party.of(system, house)
    async with system.in_place_of("wallet", {"TANDEM_ROLES": "api,relay"}):
        asking = asyncio.create_task(party.all_ask())
        try:
            async with beside(system, "doomed", "pipeline.after_effect:share=kill") as doomed:
                await eventually(
                    lambda: is_killed(system, doomed), "the worker is in the middle of them, and dies"
                )
                decided = "select count(*) from receipt where token = $1 and status = 'received'"
                assert (await system.rows("wallet", decided, party.wanted["token"]))[0][0] == 0
                async with Redis.from_url(system.runtime.server_urls()["redis"]) as redis:
                    await redis.flushall()
                async with beside(system, "worker"):
                    answers = await asking
        finally:
            asking.cancel()
    await party.ten_have_a_share_each(answers)
    told = Counter(await system.until_told(2, user_id=party.giver))
    assert told == {"user.registered": 1, "distribution.closed": 1}


@asynccontextmanager
async def beside(system: RunningSystem, suffix: str, failpoints: str = "") -> AsyncIterator[str]:
    """A process of the wallet that only decides, beside the one that is asked; yields its name."""
    processes = system.runtime.processes
    environment = {"TANDEM_ROLES": "consumer", "TANDEM_FAILPOINTS": failpoints}
    name = await asyncio.to_thread(
        processes.start_extra, system.process("wallet"), suffix, environment, wait=not failpoints
    )
    try:
        yield name
    finally:
        await asyncio.to_thread(processes.stop_extra, name)


async def is_killed(system: RunningSystem, name: str) -> bool:
    """Fails where it has ended in another way."""
    row = next(row for row in await asyncio.to_thread(system.runtime.processes.rows) if row["name"] == name)
    assert row["pid"] or row["exitstatus"] == -1, row
    return not row["pid"]
