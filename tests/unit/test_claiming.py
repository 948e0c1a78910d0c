"""Claims as a process makes them: what it waits for, counts and tells of; Redis answers what it is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ReadOnlyError
from structlog.testing import capture_logs

from shared.consuming.claims import Claim, Claims, ClaimState, _keys
from shared.envelope import Envelope
from shared.errors import UnavailableError
from tests.unit.stages import (
    RETRIED,
    SUBSCRIPTION,
    Counted,
    Slept,
    Told,
    batch_of,
    claiming,
    settings_with,
    statuses,
)

NEW, BUSY, DONE = ClaimState.NEW, ClaimState.BUSY, ClaimState.DONE
QUEUE = SUBSCRIPTION.queue


async def test_what_is_claimed_is_counted_once_by_its_outcome() -> None:
    claims, counted = Told({"0": Claim(NEW, 3), "1": Claim(BUSY), "2": Claim(DONE)}), Counted()
    stage, works = claiming(claims, counted), list(batch_of("a", "b", "c", "d").works.values())
    assert await stage.claim_once(works) == [works[1]]
    assert [work.attempt for work in works] == [3, 1, 1, 2]
    assert [work.status for work in works] == [None, None, "duplicate", None]
    for answer in (Claim(BUSY), Claim(NEW, 2), Claim(BUSY)):  # it was given back in between
        claims.answers["1"] = answer
        assert await stage.claim_once(works[1:2]) == (works[1:2] if answer.state is BUSY else [])
    assert works[1].attempt == 2
    assert counted.told == [
        ("claimed", QUEUE, {NEW: 2, BUSY: 1, DONE: 1}),
        ("claimed", QUEUE, {}),
        ("claimed", QUEUE, {NEW: 1}),
        ("claimed", QUEUE, {}),
    ]
    await claims.close()


async def test_what_stays_busy_is_asked_for_until_its_holder_must_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept = Slept(monkeypatch, "shared.consuming.claiming", step_s=2.5)
    batch, claims = batch_of("a", "b", "a"), Told({"0": Claim(BUSY)})
    await claiming(claims, heartbeat_ttl_s=5).claim(batch)
    assert slept.asked_for == [0.005, 0.01, 0.02, 0.04, 0.08], "twice as long as a heartbeat lives"
    assert claims.asked == ["0", "1", "2", *["0"] * 5]
    assert statuses(batch) == [RETRIED, None, RETRIED], "what follows it under its key goes back with it"
    await claims.close()


async def test_what_becomes_free_in_time_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Freed(Told):
        async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
            answers = await super().claim(subscriber, events)
            self.answers.clear()
            return answers

    slept = Slept(monkeypatch, "shared.consuming.claiming", step_s=0.1)
    batch, claims = batch_of("a", "a"), Freed({"0": Claim(BUSY)})
    await claiming(claims).claim(batch)
    assert (slept.asked_for, claims.asked) == ([0.005], ["0", "1", "0"])
    assert statuses(batch) == [None, None]
    assert [work.attempt for work in batch.works.values()] == [2, 2]
    await claims.close()


async def test_claims_are_given_back_with_or_without_the_count_of_earlier_deliveries() -> None:
    claims = Told()
    stage, works = claiming(claims), list(batch_of("a", "b").works.values())
    await stage.give_back([])
    await stage.give_back(works[:1])
    await stage.give_back(works[1:], forget=True)
    assert claims.released == [("tester:0", False), ("tester:1", True)]
    await claims.close()


async def test_a_redis_that_is_lost_is_told_of_once_until_it_has_been_back_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lost(Told):
        async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
            await super().claim(subscriber, events)
            raise UnavailableError("planted")

    now = 1_000.0
    monkeypatch.setattr("shared.consuming.claiming.time", SimpleNamespace(monotonic=lambda: now))
    claims, counted = Lost(), Counted()
    stage, works = claiming(claims, counted), list(batch_of("a").works.values())

    async def logged_after(seconds: float) -> list[Any]:
        nonlocal now
        now += seconds
        with capture_logs() as logs:
            assert await stage.claim_once(works) == [], "without a claim nothing is busy"
        return logs

    told = {
        "event": "pipeline.without_claims",
        "queue": QUEUE,
        "error": "planted",
        "log_level": "warning",
    }
    assert [await logged_after(seconds) for seconds in (0, 0.9, 0.1, 2, 2.5)] == [[told], [], [], [], [told]]
    assert claims.asked == ["0"] * 4, "it is left alone for a second"
    assert counted.told == [("without claims", QUEUE, 1)] * 5
    await claims.close()


async def test_a_redis_that_is_lost_while_claims_are_given_back_is_left_alone_too() -> None:
    class Lost(Told):
        async def release(self, subscriber: str, events: Sequence[Envelope], *, forget: bool = False) -> None:
            await super().release(subscriber, events, forget=forget)
            raise UnavailableError("planted")

    claims = Lost()
    stage, works = claiming(claims), list(batch_of("a").works.values())
    with capture_logs() as logs:
        for _ in range(3):
            await stage.give_back(works)
    assert claims.released == [("tester:0", False)]
    assert [(one["event"], one["error"]) for one in logs] == [("pipeline.without_claims", "planted")]
    await claims.close()


# -- marking


class SlowlyMarking(Claims):
    """Redis that answers to a marking when it is told to; the ids that were marked."""

    def __init__(self) -> None:
        super().__init__(settings_with(redis_url="redis://127.0.0.1:1"))
        self.answers = asyncio.Event()
        self.marked: list[str] = []

    async def done(self, subscriber: str, events: Sequence[Envelope]) -> None:
        await self.answers.wait()
        self.marked += [f"{subscriber}:{event.id}" for event in events]


async def test_nothing_waits_for_a_marking_but_the_next_one_and_the_end() -> None:
    claims = SlowlyMarking()
    stage = claiming(claims)
    await stage.mark_done(list(batch_of("a", "b").works.values()))
    second = asyncio.create_task(stage.mark_done(list(batch_of("c").works.values())))
    closing = asyncio.create_task(claims.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert claims.marked == []
    assert not second.done()
    assert not closing.done()
    claims.answers.set()
    await asyncio.wait_for(second, 5)
    await asyncio.wait_for(closing, 5)
    await stage.marked()
    assert claims.marked == ["tester:0", "tester:1", "tester:0"]


async def test_redis_that_is_lost_while_it_is_told_is_left_alone_for_a_while() -> None:
    class Lost(SlowlyMarking):
        async def done(self, subscriber: str, events: Sequence[Envelope]) -> None:
            self.marked += [f"{subscriber}:{event.id}" for event in events]
            raise UnavailableError("planted")

    claims = Lost()
    stage = claiming(claims)
    with capture_logs() as logs:
        for _ in range(3):
            await stage.mark_done(list(batch_of("a").works.values()))
        await stage.marked()
    assert claims._beside == set(), "what has ended is not kept"
    await claims.close()
    assert claims.marked == ["tester:0"]
    assert [(one["event"], one["error"]) for one in logs] == [("pipeline.without_claims", "planted")]


async def test_a_marking_that_fails_for_another_reason_is_told_to_the_next() -> None:
    class Broken(SlowlyMarking):
        async def done(self, subscriber: str, events: Sequence[Envelope]) -> None:
            raise KeyError(subscriber, len(events))

    claims = Broken()
    stage = claiming(claims)
    await stage.mark_done(list(batch_of("a").works.values()))
    with pytest.raises(KeyError, match="tester"):
        await stage.mark_done([])
    await claims.close()


# -- the heartbeat


async def test_leaving_the_heartbeat_ends_it_although_the_client_swallows_a_cancellation() -> None:
    class Swallowing(Claims):
        """As `asyncio.wait_for` of Python 3.11 does, within the client, when the answer comes at that moment."""

        beats = 0
        beating = asyncio.Event()

        async def _beat(self) -> None:
            self.beats += 1
            if self.beats == 2:  # the first of the pulse's own
                self.beating.set()
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

    async def live_and_leave() -> None:
        async with claims.heartbeat():
            await claims.beating.wait()

    claims = Swallowing(
        settings_with(redis_url="redis://127.0.0.1:1", heartbeat_interval_s=0.001, heartbeat_ttl_s=1)
    )
    done, _ = await asyncio.wait([asyncio.create_task(live_and_leave())], timeout=10)
    assert done, "the heartbeat is awaited for ever"
    await claims.close()


class Beating(Claims):
    """Redis that answers each heartbeat as it is told; `over` when the last answer is given."""

    def __init__(self, answers: Iterable[str]) -> None:
        super().__init__(
            settings_with(redis_url="redis://127.0.0.1:1", heartbeat_interval_s=0.001, heartbeat_ttl_s=1)
        )
        self.answers = iter(answers)
        self.over = asyncio.Event()

    async def _beat(self) -> None:
        answer = next(self.answers, "")
        if not answer:
            self.over.set()
            await asyncio.Event().wait()
        if answer != "well":
            raise UnavailableError(answer)


async def test_a_redis_that_does_not_hear_the_heartbeat_is_told_of_once_and_when_it_is_back() -> None:
    claims = Beating(["not yet", "well", "away", "still away", "well", "well", "away again"])
    with capture_logs() as logs:
        async with claims.heartbeat():
            await asyncio.wait_for(claims.over.wait(), 10)
    await claims.close()
    assert [(one["event"], one.get("error")) for one in logs] == [
        ("redis.unavailable", "away"),
        ("redis.back", None),
        ("redis.unavailable", "away again"),
    ]


# -- what is asked of Redis


async def test_idle_connections_to_what_became_a_replica_are_closed_and_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims, closed = Claims(settings_with(redis_url="redis://127.0.0.1:1")), []

    async def disconnect(inuse_connections: bool = True) -> None:
        closed.append(inuse_connections)

    async def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(claims._redis.connection_pool, "disconnect", disconnect)
    monkeypatch.setattr(claims, "_claim_script", refuse)
    for error in (ConnectionError("gone"), ReadOnlyError("a replica")):
        with pytest.raises(UnavailableError, match=f"^Redis: {error}$"):
            await claims.claim("tester", [])
    assert closed == [False], "those in use end by themselves"
    await claims.close()


async def test_a_redis_that_takes_a_connection_and_says_nothing_is_away() -> None:
    said_nothing_to: list[asyncio.StreamWriter] = []

    def keep_silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said_nothing_to.append(writer)

    server = await asyncio.start_server(keep_silent, "127.0.0.1")
    host, port = server.sockets[0].getsockname()[:2]
    claims = Claims(settings_with(redis_url=f"redis://{host}:{port}", redis_timeout_s=0.05))
    for asking in (claims.ping(), claims._beat()):
        with pytest.raises(UnavailableError, match=r"^Redis: ."):
            await asyncio.wait_for(asking, 4)
    assert said_nothing_to
    await claims.close()
    for writer in said_nothing_to:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_a_redis_that_takes_no_connection_is_away() -> None:
    """Its queue of connections is full, so that it answers to no further one: like a machine that is gone."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as queued:
        host, port = full.getsockname()
        for _ in range(2):
            waiting = queued.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        claims = Claims(settings_with(redis_url=f"redis://{host}:{port}", redis_timeout_s=0.05))
        for asking in (claims.ping(), claims._beat()):  # a script of ours, and a command of redis-py's
            with pytest.raises(UnavailableError, match=r"^Redis: "):
                await asyncio.wait_for(asking, 4)
        await claims.close()


async def test_a_ping_claims_something_for_a_few_seconds_as_batches_are_claimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims = Claims(settings_with(redis_url="redis://127.0.0.1:1", claim_lock_s=600), owner="me")
    asked: list[tuple[object, ...]] = []

    async def answer(args: tuple[object, ...]) -> list[int]:
        asked.append(args)
        return [1]

    monkeypatch.setattr(claims, "_claim_script", answer)
    event = Envelope(source="/tests", type="thing.happened", id="an-event", data=None)
    assert await claims.claim("tester", [event]) == [Claim(NEW, 1)]
    await claims.ping()
    assert asked == [
        (b'["an-event"]', "tandem:claim:tester:6:/tests:", "me", 600_000),
        (b'["me"]', "tandem:probe:", "me", 5_000),
    ]
    await claims.close()


@pytest.mark.parametrize("sources", [["/a", "/a"], ["/a", "/b"], ["/a"], ["", "/a"], []])
def test_a_claim_has_the_same_key_whatever_else_is_claimed(sources: list[str]) -> None:
    events = [Envelope(source=source, type="t", id=f"id-{at}", data={}) for at, source in enumerate(sources)]
    start, rests = _keys("tester", events)
    assert [start + rest for rest in rests] == [f"tandem:claim:tester:{event.identity}" for event in events]
