"""Redis claims: new, busy, done; takeover from the dead; attempts; Redis gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.consuming.claims import Claim, Claims, ClaimState
from shared.envelope import Envelope
from shared.errors import UnavailableError
from tests.integration.world import World, eventually, happened

NEW = ClaimState.NEW
BUSY = Claim(ClaimState.BUSY)
DONE = Claim(ClaimState.DONE)
FIRST = Claim(NEW, 1)

QUICK: dict[str, Any] = {"heartbeat_interval_s": 0.2, "heartbeat_ttl_s": 1.0}


def some(count: int) -> list[Envelope]:
    return [happened(number) for number in range(count)]


async def test_a_fresh_event_is_new_and_then_busy_for_everybody_else(rabbit_world: World) -> None:
    mine, other = await rabbit_world.claims(), await rabbit_world.claims()
    events = some(3)
    assert await mine.claim("s", events) == [FIRST] * 3
    assert await other.claim("s", events) == [BUSY] * 3


async def test_a_finished_event_is_done_for_everybody(rabbit_world: World) -> None:
    mine, other = await rabbit_world.claims(), await rabbit_world.claims()
    events = some(2)
    await mine.claim("s", events)
    await mine.done("s", events[:1])
    assert await mine.claim("s", events[:1]) == [DONE]
    assert await other.claim("s", events) == [DONE, BUSY]


async def test_claims_of_one_subscriber_say_nothing_about_another(rabbit_world: World) -> None:
    claims = await rabbit_world.claims()
    events = some(1)
    await claims.claim("one", events)
    await claims.done("one", events)
    assert await claims.claim("two", events) == [FIRST]


async def test_source_and_id_are_not_mixed_up(rabbit_world: World) -> None:
    """CloudEvents sources are URIs, ids are any text: a separator inside them must not join two events."""
    claims = await rabbit_world.claims()
    unique = rabbit_world.name
    done, other = happened(1, source=f"urn:{unique}", id="a:b"), happened(1, source=f"urn:{unique}:a", id="b")
    await claims.claim("s", [done])
    await claims.done("s", [done])
    assert await claims.claim("s", [other]) == [FIRST]


async def test_a_released_claim_is_free_at_once_and_that_delivery_is_not_counted(rabbit_world: World) -> None:
    mine, other = await rabbit_world.claims(), await rabbit_world.claims()
    events = some(2)
    await mine.claim("s", events)
    await mine.release("s", events)
    assert await other.claim("s", events) == [FIRST] * 2


async def test_nobody_releases_what_another_holds(rabbit_world: World) -> None:
    mine, other = await rabbit_world.claims(), await rabbit_world.claims()
    events = some(1)
    await mine.claim("s", events)
    await other.release("s", events)
    await other.release("s", events, forget=True)
    assert await other.claim("s", events) == [BUSY]


async def test_a_done_mark_survives_a_release(rabbit_world: World) -> None:
    claims = await rabbit_world.claims()
    events = some(1)
    await claims.claim("s", events)
    await claims.done("s", events)
    await claims.release("s", events, forget=True)
    assert await claims.claim("s", events) == [DONE]


async def test_a_dead_owners_claims_are_taken_over_and_its_deliveries_counted(rabbit_world: World) -> None:
    events = some(2)
    for attempt in (1, 2, 3):
        dead = await rabbit_world.claims(alive=False)
        assert await dead.claim("s", events) == [Claim(NEW, attempt)] * 2
    survivor = await rabbit_world.claims()
    assert await survivor.claim("s", events) == [Claim(NEW, 4)] * 2
    assert await (await rabbit_world.claims()).claim("s", events) == [BUSY] * 2


async def test_forgetting_a_claim_forgets_the_deliveries_counted(rabbit_world: World) -> None:
    events = some(1)
    for _ in range(3):
        await (await rabbit_world.claims(alive=False)).claim("s", events)
    survivor = await rabbit_world.claims()
    await survivor.claim("s", events)
    await survivor.release("s", events, forget=True)
    assert await survivor.claim("s", events) == [FIRST]


async def test_a_killed_owner_blocks_its_events_for_its_heartbeat_not_for_the_lock(rabbit_world: World) -> None:
    killed = await rabbit_world.claims(alive=False, **QUICK)
    other = await rabbit_world.claims(**QUICK)
    events = some(1)
    await killed._beat()  # its last sign of life
    await killed.claim("s", events)
    assert await other.claim("s", events) == [BUSY]

    async def taken_over() -> bool:
        return await other.claim("s", events) == [Claim(NEW, 2)]

    await eventually(taken_over, "the dead owner's claim is taken over", deadline_s=30)


async def test_an_owner_that_leaves_in_good_order_frees_its_claims_at_once(rabbit_world: World) -> None:
    leaving, other = Claims(rabbit_world.settings()), await rabbit_world.claims()
    events = some(1)
    async with leaving.heartbeat():
        await leaving.claim("s", events)
        assert await other.claim("s", events) == [BUSY]
    await leaving.close()
    assert (await other.claim("s", events))[0].state is NEW


async def test_a_heartbeat_keeps_a_slow_owners_claims(rabbit_world: World) -> None:
    slow, other = await rabbit_world.claims(**QUICK), await rabbit_world.claims(**QUICK)
    events = some(1)
    await slow.claim("s", events)
    await asyncio.sleep(2 * QUICK["heartbeat_ttl_s"])  # the claim: still busy after the heartbeat's lifetime
    assert await other.claim("s", events) == [BUSY]


async def test_claims_marks_and_heartbeats_live_as_long_as_they_are_told(rabbit_world: World) -> None:
    claims = await rabbit_world.claims(claim_lock_s=600, claim_done_s=1_200, heartbeat_ttl_s=300)
    done, _held, freed = events = some(3)
    await claims.claim("s", events)
    await claims.done("s", [done])
    await claims.release("s", [freed])
    keys = [*(f"tandem:claim:s:{event.identity}" for event in events), f"tandem:alive:{claims.owner}"]
    async with Redis.from_url(rabbit_world.settings().redis_url) as redis:
        lives_ms = [await redis.pttl(key) for key in keys]
    for life_ms, told_s in zip(lives_ms, (1_200, 600, 600, 300), strict=True):
        assert told_s * 500 < life_ms <= told_s * 1_000


async def test_a_connection_that_the_server_has_closed_costs_nothing(rabbit_world: World) -> None:
    claims = await rabbit_world.claims(alive=False)
    one, two = some(2)
    assert await claims.claim("s", [one]) == [FIRST]
    idle = claims._scripts._connection
    assert idle is not None
    assert idle._transport is not None
    host, port = idle._transport.get_extra_info("sockname")
    async with Redis.from_url(rabbit_world.settings().redis_url) as redis:
        assert await redis.client_kill_filter(_type="normal", addr=f"{host}:{port}") == 1
    assert await claims.claim("s", [two]) == [FIRST]
    assert claims._scripts._connection is not idle


async def test_claims_are_made_under_an_account_in_a_database_by_our_connection_and_by_the_client(
    rabbit_world: World,
) -> None:
    url, name, event = rabbit_world.settings().redis_url, rabbit_world.name, happened(1)
    address = url.removeprefix("redis://").rpartition("/")[0].rpartition("@")[2]
    async with Redis.from_url(url) as redis:
        await redis.acl_setuser(name, enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        try:
            ours = await rabbit_world.claims(redis_url=f"redis://{name}:secret@{address}/3")
            theirs = await rabbit_world.claims(redis_url=f"redis://{name}:secret@{address}/3?protocol=3")
            wrong = await rabbit_world.claims(redis_url=f"redis://{name}:wrong@{address}/3")
            assert await ours.claim("s", [event]) == [FIRST]
            assert await theirs.claim("s", [event]) == [BUSY]
            await ours.done("s", [event])
            assert await theirs.claim("s", [event]) == [DONE]
            with pytest.raises(UnavailableError, match="WRONGPASS"):
                await wrong.claim("s", [event])
        finally:
            await redis.acl_deluser(name)
    assert ours._scripts._connection is not None
    assert theirs._scripts._connection is None


async def test_ones_own_claim_is_no_obstacle_and_no_further_attempt(rabbit_world: World) -> None:
    """An answer lost on the way, or a release that Redis never got, must not block the owner itself."""
    mine = await rabbit_world.claims()
    events = some(1)
    await mine.claim("s", events)
    assert await mine.claim("s", events) == [FIRST]


async def test_a_flushed_redis_forgets_everything_and_serves_on(rabbit_world: World) -> None:
    mine, other = await rabbit_world.claims(), await rabbit_world.claims()
    events = some(1)
    await mine.claim("s", events)
    await mine._redis.flushall()
    await mine._redis.script_flush()
    assert await other.claim("s", events) == [FIRST]
    await mine._beat()
    assert await mine.claim("s", events) in ([BUSY], [Claim(NEW, 2)])


@pytest.mark.timeout(120)
async def test_without_redis_every_method_says_so(rabbit_world: World) -> None:
    claims = await rabbit_world.claims(redis_timeout_s=0.5)
    events = some(1)
    await asyncio.to_thread(rabbit_world.runtime.processes.stop, "redis")
    try:
        for call in (
            lambda: claims.claim("s", events),
            lambda: claims.done("s", events),
            lambda: claims.release("s", events),
            claims.ping,
        ):
            with pytest.raises(UnavailableError):
                await asyncio.wait_for(call(), 20)
    finally:
        await asyncio.to_thread(rabbit_world.runtime.processes.start, "redis")
    await claims.ping()
    assert await claims.claim("s", events) == [FIRST]
