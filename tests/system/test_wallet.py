"""Money on the whole system, on both brokers: what is accepted is done once, while the worker is slow."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx

from tests.system.house import House
from tests.system.running_system import RunningSystem, eventually

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
    answers = await asyncio.gather(*(client.post("/transfers", json=body) for _ in range(20)))
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


async def test_a_distribution_of_ten_that_twenty_ask_for_at_once_is_ten_shares_and_ten_hear_of_nothing_left(
    system: RunningSystem, house: House
) -> None:
    giver, *others = await asyncio.gather(*(system.register(f"Guest {number}") for number in range(21)))
    accounts = await asyncio.gather(house.account(giver, 1_000), *(house.account(user, 0) for user in others))
    opened = await house.in_room(giver, "POST", "/distributions", {"amount": 1_000, "people": 10})
    assert opened.status_code == 201, opened.text
    wanted = {"token": opened.json()["token"]}
    answers = await asyncio.gather(*(received(house, user_id, wanted) for user_id in others))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [409] * 10
    taken = {
        user_id: answer.json()["amount"]
        for user_id, answer in zip(others, answers, strict=True)
        if answer.status_code == 200
    }
    for refused in answers:
        assert refused.status_code == 200 or refused.json()["type"].endswith("nothing-left")
    assert sum(taken.values()) == 1_000
    for user_id in list(taken)[:2]:
        again = await house.in_room(user_id, "POST", "/receive", wanted, "k")
        assert (again.json()["amount"], again.headers["idempotent-replayed"]) == (taken[user_id], "true")
        assert (await house.in_room(user_id, "GET", again.headers["location"])).json() == again.json()
    shown = (await house.in_room(giver, "GET", opened.headers["location"])).json()
    assert {share["user_id"]: share["amount"] for share in shown["shares"]} == taken
    assert (shown["taken"], shown["given_back"], shown["closed_at"] is None) == (1_000, 0, False)
    assert len(set(accounts)) == 21
    assert await house.audit() == 0
    told = Counter(await system.until_told(2, user_id=giver))
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
