"""A crowd asks until it is told, and what it was told wrongly, or has wrongly, is found."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from experiment.side import StalledError
from faults.distributions import crowd as module
from faults.distributions.checker import Found, Given, GivenFound, ReceiptFound, ShareFound, Told, check
from faults.distributions.crowd import Crowd
from faults.distributions.side import DistributionSide

ROOM = "played-1"
GIVER, *MEMBERS = (UUID(int=number) for number in range(1, 7))
ADA, BOB, CYD, DAN, EVE = MEMBERS
GIVEN = Given(GIVER, 60, 3)
RECEIPTS = {user: ReceiptFound(UUID(int=100 + user.int), "received", 20) for user in MEMBERS}
NOTHING_LEFT, NOT_FOR_GIVER = "nothing-left", "not-for-giver"


# -- the checker


def told() -> Told:
    """Three of five have a share, two came too late, and who gives was refused."""
    return Told(
        asked={ROOM: GIVEN},
        given={ROOM},
        received={(ROOM, user): RECEIPTS[user] for user in (ADA, BOB, CYD)},
        refused={(ROOM, DAN): NOTHING_LEFT, (ROOM, EVE): NOTHING_LEFT, (ROOM, GIVER): NOT_FOR_GIVER},
        crowds={ROOM: frozenset([GIVER, *MEMBERS])},
    )


def found(*takers: UUID | None) -> Found:
    """The shares with who took them, and their receipts."""
    shares = [
        ShareFound(ROOM, 20) if user is None else ShareFound(ROOM, 20, user, RECEIPTS[user].id) for user in takers
    ]
    receipts = [((ROOM, user), RECEIPTS[user]) for user in takers if user is not None]
    return Found([GivenFound(ROOM, GIVEN)], shares, receipts)


def damage(told: Told, there: Found) -> dict[str, list[str]]:
    return {name: ones for name, ones in check(told, there).damage().items() if ones}


def test_a_crowd_of_whom_each_is_told_what_is_there_is_sound() -> None:
    assert damage(told(), found(ADA, BOB, CYD)) == {}


def test_a_receiver_who_is_counted_twice_is_found() -> None:
    there = found(ADA, BOB, CYD)
    second = ShareFound(ROOM, 20, ADA, RECEIPTS[CYD].id)
    twice = replace(there, shares=[*there.shares[:2], second])
    found_wrong = damage(told(), twice)
    assert f"{ADA} in {ROOM}" in found_wrong["doubled"]
    assert found_wrong["crowds"] == [f"{ROOM}: 1 users with one share, not 3"]


def test_a_lost_share_is_found_though_nobody_was_told_of_it() -> None:
    silent = told()
    del silent.received[ROOM, CYD]
    silent.refused[ROOM, CYD] = NOTHING_LEFT
    crowds = damage(silent, found(ADA, BOB, None))["crowds"]
    assert crowds == [
        f"{ROOM}: 2 users with one share, not 3",
        f"{ROOM}: 2 told of a share, not 3",
        f"{ROOM}: 40 told the amount, in all, not 60",
        f"{ROOM}: 3 told that nothing is left, not 2",
    ]


def test_an_answer_that_is_not_committed_is_found() -> None:
    """Dan was told of a share that is nobody's, or Cyd's."""
    forged = told()
    del forged.refused[ROOM, DAN]
    forged.received[ROOM, DAN] = RECEIPTS[DAN]
    assert damage(forged, found(ADA, BOB, CYD)) == {
        "lost": [f"{DAN} in {ROOM}"],
        "crowds": [
            f"{ROOM}: 4 told of a share, not 3",
            f"{ROOM}: 80 told the amount, in all, not 60",
            f"{ROOM}: 1 told that nothing is left, not 2",
        ],
    }


def test_who_was_never_told_is_found_though_all_else_is_right() -> None:
    silent = told()
    del silent.refused[ROOM, EVE]
    assert damage(silent, found(ADA, BOB, CYD)) == {
        "crowds": [f"{ROOM}: 1 told that nothing is left, not 2", f"{ROOM}: 1 never told, not 0"]
    }


def test_a_share_of_the_givers_and_one_of_who_did_not_ask_are_found() -> None:
    received = ReceiptFound(UUID(int=200), "received", 20)
    there = found(ADA, BOB)
    for thief in (GIVER, UUID(int=99)):
        stolen = replace(
            there,
            shares=[*there.shares, ShareFound(ROOM, 20, thief, received.id)],
            receipts=[*there.receipts, ((ROOM, thief), received)],
        )
        found_wrong = damage(told(), stolen)
        assert found_wrong["lost"] == [f"{CYD} in {ROOM}"]
        assert ("wrong" in found_wrong) == (thief == GIVER)
        assert bool(found_wrong.get("crowds")) == (thief != GIVER)


def test_a_crowd_that_was_found_before_is_not_found_again() -> None:
    silent = told()
    del silent.refused[ROOM, EVE]
    before = check(silent, found(ADA, BOB, CYD))
    assert before.crowds
    assert check(silent, found(ADA, BOB, CYD)).since(before).sound


# -- who asks


@dataclass
class Counter:
    """A wallet's HTTP as far as who asks sees it: each is answered by what `outcome` says of the attempt."""

    outcome: Callable[[str, int], web.Response | None]
    keys: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    asking: int = 0
    most: int = 0

    async def give(self, _request: web.Request) -> web.Response:
        return web.json_response({"token": "k7m2xq9d"}, status=201)

    async def receive(self, request: web.Request) -> web.Response:
        user = request.headers["x-user-id"]
        self.keys[user].append(request.headers["idempotency-key"])
        self.asking += 1
        self.most = max(self.most, self.asking)
        await asyncio.sleep(0.005)
        self.asking -= 1
        answer = self.outcome(user, len(self.keys[user]))
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer


@asynccontextmanager
async def crowd_before(counter: Counter, size: int, **limits: Any) -> AsyncIterator[Crowd]:
    app = web.Application()
    app.router.add_post("/distributions", counter.give)
    app.router.add_post("/receive", counter.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        [(host, port)] = [address[:2] for address in runner.addresses]
        urls = {"wallet": f"http://{host}:{port}"}
        side = SimpleNamespace(
            broker="rabbit",
            workload=SimpleNamespace(seed=1),
            runtime=SimpleNamespace(addresses=SimpleNamespace(service_urls=lambda _broker: urls)),
            progress=SimpleNamespace(detail=lambda _text: None),
        )
        distributions = DistributionSide(cast(Any, side))
        distributions._accounts[GIVER] = uuid4()
        crowd = Crowd(distributions, people=3, amount=60, **limits)
        crowd._members = [uuid4() for _ in range(size)]
        yield crowd
    finally:
        await runner.cleanup()


def problem(status: int, kind: str, **headers: str) -> web.Response:
    return web.json_response({"type": f"urn:tandem:problem:{kind}"}, status=status, headers=headers)


def in_the_end(user: str) -> web.Response:
    return problem(409, NOT_FOR_GIVER if user == str(GIVER) else NOTHING_LEFT)


async def test_each_of_a_crowd_asks_again_with_its_key_until_it_is_told_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    receipt = uuid4()

    def outcome(user: str, attempt: int) -> web.Response | None:
        """No answer at all, one that leads to it, one that does not, and in the end the end."""
        if attempt == 1:
            return None
        if attempt == 2:
            return problem(504, "no-answer-in-time", link=f'</receipts/{receipt}>; rel="status"')
        return problem(503, "not-answered") if attempt == 3 else in_the_end(user)

    counter = Counter(outcome)
    async with crowd_before(counter, 30, at_once=7) as crowd:
        await crowd.ask()
        assert len(crowd.told) == crowd.size == 31
        assert {len(keys) for keys in counter.keys.values()} == {4}
        assert all(len(set(keys)) == 1 for keys in counter.keys.values())
        assert len({keys[0] for keys in counter.keys.values()}) == 31
        assert 1 < counter.most <= 7
        [room] = crowd.side.told.crowds
        assert crowd.side.told.refused[room, GIVER] == NOT_FOR_GIVER
        assert list(crowd.side._links) == [receipt]
        with pytest.raises(StalledError, match="all of the crowd were told"):
            await crowd.until_told(1)


async def test_a_crowd_that_nobody_tells_anything_gives_up_in_time_and_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    counter = Counter(lambda _user, _attempt: problem(503, "not-answered"))
    async with crowd_before(counter, 5, at_once=2, patience_s=0.2) as crowd:
        await crowd.ask()
        assert crowd.told == set()
        assert len(counter.keys) == 2, "nobody begins when the time is over"
        told = crowd.side.told
        [room] = told.crowds
        there = Found([GivenFound(room, told.asked[room], closed=False)], [ShareFound(room, 20)] * 3)
        assert f"{room}: 6 never told, not 0" in check(told, there).crowds
        with pytest.raises(StalledError, match="0 of the crowd are told how it ended, and not 1"):
            await crowd.until_told(1)
