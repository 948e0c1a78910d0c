"""The whole way from load to verdict on real servers and services, with each class of fault planted by hand.

First in databases and processes, and put back; then in our own code. All on the same services, started once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from msgspec import structs
from redis.asyncio import Redis

from compare.measured import MeasuredSide
from compare.phases import run_backlog, run_steady
from compare.run import start_both_sets
from deploy.native import BrokerName, Runtime
from deploy.topology import BROKERS
from experiment import broker_state, facts
from experiment.checker import Verdict
from experiment.clock import Clock, until
from experiment.effects import CONSUMER
from experiment.instance import databases_of
from experiment.ledger import Identity
from experiment.profiles import PROFILES
from experiment.progress_bar import ProgressBar
from experiment.side import Side
from experiment.stamps import Passage
from experiment.workload import Workload, load_workload
from faults.fault import Fault
from faults.phase import PhaseResult, play, verify
from faults.proxy import Proxies
from faults.run import LOAD
from faults.scene import ORDER, Scene
from shared.broker import Message, create_broker
from shared.envelope import Envelope
from tests.conftest import ServersFor, start_in_turn
from tests.faults.sabotaged import ARMED
from tests.spared import FEW_PARTITIONS

pytestmark = pytest.mark.timeout(600)

EVENTS = 100
WORKLOAD = Workload.model_validate(
    {
        "name": "planted-faults",
        "seed": 7,
        "users": 6,
        "steady": {"duration_s": 2, "orders_per_s": 10, "follow_up_after_s": 0.2, "profile_updates_per_s": 5},
        "backlog": {"events": EVENTS},
        "settle_timeout_s": 60,
    }
)


@pytest.fixture(scope="module")
def runtime(servers_for: ServersFor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with servers_for(*BROKERS) as servers:
        with start_in_turn(tmp_path_factory):
            start_both_sets(servers, replace(PROFILES["as-usual"], services=FEW_PARTITIONS))
        yield servers


@pytest.fixture(scope="module")
async def both(runtime: Runtime) -> AsyncIterator[dict[BrokerName, MeasuredSide]]:
    """Two sides that have run a steady phase, all of it sound."""
    made: dict[BrokerName, MeasuredSide] = {}
    async with AsyncExitStack() as stack:
        for broker in BROKERS:
            databases = await stack.enter_async_context(databases_of(runtime, broker))
            side = Side(broker, runtime, WORKLOAD, Clock(), ProgressBar([]), databases)
            await databases.drop_unique_constraint()
            await side.register_users()
            made[broker] = measured = MeasuredSide(side)
            measured.steady.append(await run_steady(measured, "steady-1"))
        yield made


@pytest.fixture(params=["rabbit", "kafka"])
def measured(request: pytest.FixtureRequest, both: dict[BrokerName, MeasuredSide]) -> Iterator[MeasuredSide]:
    """One of them; for the next test it is patient again, and knows of no verdict."""
    measured = both[request.param]
    yield measured
    side = measured.side
    side.workload = WORKLOAD
    side.given_up.clear()
    side.verdict = Verdict()


@pytest.fixture
def side(measured: MeasuredSide) -> Side:
    return measured.side


@pytest.fixture
async def notifications(side: Side) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection to the effects, in a place where they may be tampered with: what is changed is put back."""
    connection = await asyncpg.connect(side.runtime.dsn(f"{side.broker}_notification"))
    await connection.execute("drop table if exists kept; create table kept as table notification")
    try:
        yield connection
    finally:
        await connection.execute(
            "truncate notification; insert into notification overriding system value table kept"
        )
        await connection.close()


def found(verdict: Verdict) -> dict[str, int]:
    counts = verdict.counts()
    return {name: count for name, count in counts.items() if count and name not in {"acknowledged", "effects"}}


def impatient(side: Side) -> None:
    """What is missing on purpose need not be waited for."""
    side.workload = WORKLOAD.model_copy(update={"settle_timeout_s": 3.0})


async def test_nothing_is_found_where_nothing_was_planted(measured: MeasuredSide) -> None:
    side = measured.side
    verdict = await side.verify()
    assert verdict.sound
    assert found(verdict) == {}
    assert verdict.acknowledged == verdict.effects == len(side.entries)
    assert measured.passage == Passage(stamped=len(side.entries))
    for entry in side.entries:
        passed = [entry.intended_s, entry.sent_s, entry.relayed_s, entry.received_s, entry.durable_s]
        if entry.phase != "users":
            assert passed == sorted(passed), "one clock, in one order"  # type: ignore[type-var]
    [steady] = measured.steady
    assert steady.stages.latencies["to_effect"].count == steady.load.operations
    assert steady.latencies.count == steady.load.operations
    assert steady.latencies.negative == 0
    assert not steady.load.errors


async def test_a_backlog_is_shipped_and_drained_and_sound(measured: MeasuredSide) -> None:
    side = measured.side
    result = await run_backlog(measured, "backlog-1")
    assert result.waiting == EVENTS
    assert result.whole.count <= EVENTS
    assert found(await side.verify()) == {}


async def test_a_deleted_effect_is_lost(side: Side, notifications: asyncpg.Connection[Any]) -> None:
    impatient(side)
    await notifications.execute(
        "delete from notification where sequence = (select max(sequence) from notification)"
    )
    assert found(await side.verify()) == {"lost": 1}
    side.runtime.processes.start(side.process(CONSUMER))


async def test_an_effect_recorded_twice_is_a_duplicate(side: Side, notifications: asyncpg.Connection[Any]) -> None:
    await notifications.execute(
        """
        insert into notification (id, event_source, event_id, event_type, user_id, order_id, version, title, body)
        select id, event_source, event_id || '-again', event_type, user_id, order_id, version, title, body
          from notification order by sequence limit 1
        """
    )
    assert found(await side.verify()) == {"duplicate_effects": 1}


async def test_an_event_that_comes_twice_and_is_taken_for_new_has_two_effects(
    side: Side, notifications: asyncpg.Connection[Any]
) -> None:
    """Inbox and claim forget it: nothing else stands between a second delivery and a second effect."""
    event = await recorded_event(notifications)
    await notifications.execute("delete from inbox where event_id = $1", event.id)
    async with Redis.from_url(side.settings(CONSUMER).redis_url) as redis:
        await redis.flushdb()
    await deliver_again(side, event)

    async def counted() -> bool:
        return found(await side.verify()) == {"duplicate_effects": 1}

    assert await until(counted, 60, 0.2)


async def recorded_event(notifications: asyncpg.Connection[Any]) -> Envelope:
    """The event of some order that took effect, with what its consumer needs of it."""
    row = await notifications.fetchrow(
        """
        select event_source, event_id, order_id::text, user_id::text from notification
         where event_type = 'order.placed' limit 1
        """
    )
    assert row is not None
    data = {
        "order_id": row["order_id"], "user_id": row["user_id"], "currency": "EUR", "total_amount": 1, "version": 1
    }  # fmt: skip
    return Envelope(
        source=row["event_source"], id=row["event_id"], type="order.placed", subject=row["order_id"], data=data
    )


async def deliver_again(side: Side, event: Envelope) -> None:
    async with create_broker(side.settings("order"), "test") as broker:
        await broker.declare(["order"])
        message = Message("order", event.type, str(event.subject), event.encode())
        assert await broker.publish([message]) == []


async def test_a_later_event_recorded_first_is_reordered(
    side: Side, notifications: asyncpg.Connection[Any]
) -> None:
    # Some order's first event is recorded anew after all others.
    await notifications.execute(
        """
        update notification set sequence = (select max(sequence) + 1 from notification)
         where event_type = 'order.placed' and order_id = (
           select order_id from notification where event_type = 'order.paid' limit 1)
        """
    )
    verdict = await side.verify()
    assert found(verdict) == {"reordered": 1}
    assert verdict.reordered[0].event_type == "order.placed"


async def test_an_effect_of_nothing_is_unexpected(side: Side, notifications: asyncpg.Connection[Any]) -> None:
    await notifications.execute(
        """
        insert into notification (id, event_source, event_id, event_type, user_id, order_id, version, title, body)
        select gen_random_uuid(), event_source, 'made-up', event_type, user_id, gen_random_uuid(), version, title,
               body
          from notification where event_type = 'order.placed' limit 1
        """
    )
    assert found(await side.verify()) == {"unexpected": 1}


async def test_a_change_of_a_user_that_does_not_come_to_the_order_service_leaves_its_copy_stale(
    side: Side,
) -> None:
    impatient(side)
    orders = await asyncpg.connect(side.runtime.dsn(f"{side.broker}_order"))
    changed = next(entry.key for entry in side.entries if entry.event_type == "user.profile_updated")
    statement = "update known_user set version = version + $1 where user_id = $2::uuid"
    await orders.execute(statement, -1, changed)
    try:
        verdict = await side.verify()
    finally:
        await orders.execute(statement, 1, changed)
        await orders.close()
    assert found(verdict) == {"stale": 1}
    assert verdict.stale[0].key == changed


async def test_events_that_the_relay_does_not_ship_are_stuck_in_the_outbox(side: Side) -> None:
    impatient(side)
    side.runtime.processes.stop(side.process("order"))
    await side.write_backlog(EVENTS, "outbox")
    assert found(await side.verify()) == {"stuck": EVENTS}
    side.runtime.processes.start(side.process("order"))
    side.runtime.processes.start(side.process(CONSUMER))
    await recovers(side)


async def test_events_that_nobody_consumes_are_stuck_in_the_broker(side: Side) -> None:
    impatient(side)
    side.runtime.processes.stop(side.process(CONSUMER))
    await side.write_backlog(EVENTS, "queue")
    await until_shipped(side)
    assert found(await side.verify()) == {"stuck": EVENTS}
    side.runtime.processes.start(side.process(CONSUMER))
    await recovers(side)


async def test_events_of_an_unknown_schema_are_found_among_the_dead_letters(side: Side) -> None:
    side.runtime.processes.stop(side.process("order"))
    await side.write_backlog(EVENTS, "dead")
    outbox = await asyncpg.connect(side.runtime.dsn(f"{side.broker}_order"))
    changed = await outbox.execute(
        """
        update outbox
           set body = convert_to(replace(convert_from(body, 'UTF8'), 'order.placed:1', 'order.placed:99'), 'UTF8')
         where position in (select position from outbox where type = 'order.placed' order by position desc limit 2)
        """
    )
    await outbox.close()
    assert changed == "UPDATE 2"
    side.runtime.processes.start(side.process("order"))
    await until_shipped(side)

    async def consumed() -> bool:
        return await side.databases.effect_count(0) >= len(side.entries) - 2

    assert await until(consumed, 60, 0.1)
    impatient(side)
    assert found(await side.verify()) == {"dead_lettered": 2}

    # One that has its effect, too, and of which nothing is missing.
    connection = await asyncpg.connect(side.runtime.dsn(f"{side.broker}_notification"))
    again = await recorded_event(connection)
    await connection.close()
    await deliver_again(side, structs.replace(again, id=str(uuid4()), dataschema="urn:tandem:order.placed:99"))
    last: dict[str, int] = {}

    async def counted() -> bool:
        nonlocal last
        last = found(await side.verify())
        return last == {"dead_lettered": 3}

    assert await until(counted, 60, 0.2), last


async def until_shipped(side: Side) -> None:
    async def shipped() -> bool:
        return await side.databases.outbox_ends() is None

    assert await until(shipped, 60, 0.1)


async def recovers(side: Side) -> None:
    """Once what stood still runs again, everything arrives: stuck was the right word."""
    side.workload = WORKLOAD
    side.given_up.clear()
    assert found(await side.verify()) == {}


# -- in our own code

AS_PLAYED = load_workload(LOAD)
HALF = AS_PLAYED.steady.model_copy(update={"orders_per_s": 6.0, "profile_updates_per_s": 5.0})
PLAYED = AS_PLAYED.model_copy(update={"users": WORKLOAD.users, "steady": HALF, "settle_timeout_s": 6.0})


@pytest.fixture(scope="module")
async def sides(both: dict[BrokerName, MeasuredSide]) -> dict[BrokerName, Side]:
    """Both sides with all that runs while faults are played; the letters of the tests before are no news."""
    for side in (sides := {broker: measured.side for broker, measured in both.items()}).values():
        letters = await broker_state.dead_letter_identities(side.settings(CONSUMER))
        assert len(letters) == 3
        for row in side.runtime.sets[side.broker].processes:
            if row.process in facts.PLAYED:
                await asyncio.to_thread(side.runtime.processes.start, row.name)

        async def kept(side: Side = side, letters: set[Identity] = letters) -> bool:
            return letters <= await side.databases.kept_identities()

        assert await until(kept, 60, 0.2), "the dead-letter service takes what lies in the broker"
        impatient(side)
        assert not (await verify(side, [])).lost
        side.workload = PLAYED
    return sides


async def sabotage(name: str, side: Side) -> PhaseResult:
    """Play the death of a sabotaged process; what follows it is sabotaged in the same way."""
    process = ORDER if name == "mark-before-confirming" else CONSUMER
    service = process.partition("-")[0]
    module = ["tests.faults.sabotaged", name, service]

    async def prepare(scene: Scene) -> None:
        await scene.stand_in(process, {"TANDEM_FAILPOINTS": f"{ARMED[name]}=kill@10"}, module)

    async def act(scene: Scene) -> None:
        stand_in = f"{scene.process(process)}-stand-in"
        await scene.await_end(stand_in)
        scene.begin()
        await scene.call(scene.runtime.processes.stop_extra, stand_in)
        await scene.stand_in(process, {}, module)
        scene.end()

    async def restore(scene: Scene) -> None:
        await scene.restored(process)

    return await play(Fault(name, name, act, 8, prepare, restore), side, Proxies({}))


async def test_an_adapter_that_acknowledges_early_loses_events(sides: dict[BrokerName, Side]) -> None:
    for side in sides.values():
        result = await sabotage("acknowledge-early", side)
        assert result.verdict.lost, side.broker
        assert not result.sound


async def test_a_relay_that_marks_before_confirming_loses_events(sides: dict[BrokerName, Side]) -> None:
    result = await sabotage("mark-before-confirming", sides["kafka"])
    assert result.verdict.lost
    assert not result.sound


async def test_a_claim_without_an_owner_loses_events(sides: dict[BrokerName, Side]) -> None:
    result = await sabotage("claim-without-owner", sides["rabbit"])
    assert result.verdict.lost
    assert not result.sound


async def test_without_an_inbox_effects_are_doubled(sides: dict[BrokerName, Side]) -> None:
    result = await sabotage("no-inbox", sides["rabbit"])
    assert result.verdict.duplicate_effects
    assert not result.sound
