"""Lists the faults, in the order in which they are played; each is one function of a `Scene`."""

from __future__ import annotations

import asyncio
import json
import signal

from experiment.effects import CONSUMER
from experiment.side import StalledError
from faults import furniture, poison, quota, webhook
from faults.clock_step import ClockStep
from faults.deaths import zombie
from faults.fault import Act, Fault
from faults.kinds import KINDS
from faults.scene import ORDER, Scene
from faults.servers import AWAY_S, CUT_S, broker_restarted, cut, redis_client, redis_flushed, restarted
from shared import failpoints

_PASSES = 15
"""An armed process runs for so many batches before it breaks: a second or three of the load."""
_ALARM_S = 8.0
_FULL_BYTES = 1
"""Less than Redis has in use when it is empty."""
_LONGER_THAN_KEPT_S = 8 * 86_400
"""Longer than an event is kept on a broker."""


# -- processes


async def _consumer_killed(scene: Scene) -> None:
    await scene.kill(scene.process(CONSUMER))


def _dies_at(place: str, name: str) -> tuple[Act, Act, Act]:
    """Prepare, act and restore of a process that kills itself at a fail point and is followed by a sound one."""

    async def prepare(scene: Scene) -> None:
        await scene.stand_in(name, {"TANDEM_FAILPOINTS": f"{place}=kill@{_PASSES}"})

    async def act(scene: Scene) -> None:
        await scene.await_end(f"{scene.process(name)}-stand-in")
        scene.begin()
        scene.end()
        await scene.restored(name)

    async def restore(scene: Scene) -> None:
        await scene.restored(name)

    return prepare, act, restore


def _armed(name: str, title: str, place: str, process: str) -> Fault:
    prepare, act, restore = _dies_at(place, process)
    return Fault(name, title, act, load_s=9, prepare=prepare, restore=restore)


def _clock(name: str, title: str, step: ClockStep) -> Fault:
    return Fault(name, title, step.act, load_s=8, prepare=step.prepare, restore=step.restore)


async def _two_relays(scene: Scene) -> None:
    """A second relay beside the first; then the first, which leads, is killed, and comes back as the second."""
    await scene.call(scene.runtime.processes.start_extra, scene.process(ORDER), "second")
    await asyncio.sleep(2)
    await scene.kill(scene.process(ORDER))


async def _remove_second_order(scene: Scene) -> None:
    await scene.remove_extras(ORDER)


async def _scale(scene: Scene) -> None:
    """Two more consumers come; one goes in good order, one is killed."""
    began_s = scene.side.clock.now_s()
    name = scene.process(CONSUMER)
    second = await scene.call(scene.runtime.processes.start_extra, name, "second")
    third = await scene.call(scene.runtime.processes.start_extra, name, "third")
    await asyncio.sleep(2)
    await scene.call(scene.runtime.processes.stop_extra, second)
    await scene.kill(third)
    scene.began_s = began_s


async def _remove_consumers(scene: Scene) -> None:
    await scene.remove_extras(CONSUMER)


async def _rolling_restart(scene: Scene) -> None:
    """Every process of every service, one after the other, each ready before the next goes."""
    scene.begin()
    for row in scene.runtime.sets[scene.broker].processes:
        await scene.call(scene.runtime.processes.restart, row.name)
    scene.end()


# -- servers


async def _broker_killed(scene: Scene) -> None:
    await scene.kill(scene.broker)


async def _redis_down(scene: Scene) -> None:
    scene.begin()
    await scene.call(scene.runtime.processes.stop, "redis")
    await asyncio.sleep(AWAY_S)
    await scene.call(scene.runtime.processes.start, "redis")
    scene.end()


async def _redis_back(scene: Scene) -> None:
    await scene.call(scene.runtime.processes.start, "redis")


async def _redis_hangs(scene: Scene) -> None:
    """Redis takes connections and answers nobody."""
    scene.begin()
    await scene.call(scene.runtime.processes.kill, "redis", signal.SIGSTOP)
    await asyncio.sleep(AWAY_S)
    await _redis_goes_on(scene)
    scene.end()


async def _redis_goes_on(scene: Scene) -> None:
    await scene.wake("redis")


async def _redis_full(scene: Scene) -> None:
    """Redis answers, and refuses every write."""
    async with redis_client(scene) as client:
        limit = (await client.config_get("maxmemory"))["maxmemory"] or "0"
        scene.begin()
        await client.config_set("maxmemory", _FULL_BYTES)
        try:
            await asyncio.sleep(AWAY_S)
        finally:
            await client.config_set("maxmemory", limit)
        scene.end()


async def _broker_cut(scene: Scene) -> None:
    await cut(scene, scene.broker)


async def _broker_mended(scene: Scene) -> None:
    scene.proxies.mend(scene.broker)


async def _postgres_cut(scene: Scene) -> None:
    await cut(scene, "postgres")


async def _postgres_mended(scene: Scene) -> None:
    scene.proxies.mend("postgres")


async def _memory_alarm(scene: Scene) -> None:
    """Every publisher is blocked: RabbitMQ believes that it has used up its memory."""
    scene.begin()
    await scene.call(scene.runtime.rabbitmqctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    status = json.loads(await scene.call(scene.runtime.rabbitmqctl, "status", "--formatter", "json"))
    await asyncio.sleep(_ALARM_S)
    await _memory_alarm_off(scene)
    scene.end()
    if not status["alarms"]:
        raise StalledError("RabbitMQ has raised no alarm, though its limit of memory is 1 MB")


async def _memory_alarm_off(scene: Scene) -> None:
    await scene.call(scene.runtime.rabbitmqctl, "set_vm_memory_high_watermark", "0.4")


async def _disk_full(scene: Scene) -> None:
    scene.begin()
    await quota.disk_full(scene, _ALARM_S)
    scene.end()


async def _node_killed(scene: Scene) -> None:
    """The node that most clients are connected to: the first of the list."""
    await scene.kill(scene.broker)


FAULTS: tuple[Fault, ...] = (
    Fault("consumer-sigkill", "consumer SIGKILL", _consumer_killed, load_s=10),
    _armed("consumer-before-effect", "consumer SIGKILL before the effect", failpoints.BEFORE_EFFECT, CONSUMER),
    _armed("consumer-after-effect", "consumer SIGKILL before the commit", failpoints.AFTER_EFFECT, CONSUMER),
    _armed("consumer-after-commit", "consumer SIGKILL before settling", failpoints.AFTER_COMMIT, CONSUMER),
    _armed("relay-before-publish", "relay SIGKILL before publish", failpoints.BEFORE_PUBLISH, ORDER),
    _armed("relay-after-publish", "relay SIGKILL after publish", failpoints.AFTER_PUBLISH, ORDER),
    zombie("consumer-zombie", "consumer", CONSUMER, _PASSES),
    Fault("broker-restart", "broker restart", broker_restarted, load_s=22),
    Fault("broker-sigkill", "broker SIGKILL", _broker_killed, load_s=26),
    Fault("postgres-restart", "PostgreSQL restart", restarted("postgres"), load_s=10),
    Fault("redis-flushall", "Redis FLUSHALL", redis_flushed, load_s=6),
    Fault("redis-down", f"Redis down {AWAY_S:g} s", _redis_down, load_s=16, restore=_redis_back),
    Fault("broker-cut", f"network to the broker cut {CUT_S:g} s", _broker_cut, 18, restore=_broker_mended),
    Fault("postgres-cut", f"network to PostgreSQL cut {CUT_S:g} s", _postgres_cut, 18, restore=_postgres_mended),
    Fault(
        "memory-alarm",
        f"RabbitMQ memory alarm {_ALARM_S:g} s",
        _memory_alarm,
        load_s=16,
        restore=_memory_alarm_off,
        brokers=("rabbit",),
    ),
    Fault("disk-full", f"Kafka disk full {_ALARM_S:g} s", _disk_full, load_s=28, brokers=("kafka",)),
    Fault("redis-hangs", f"Redis SIGSTOP for {AWAY_S:g} s", _redis_hangs, load_s=16, restore=_redis_goes_on),
    Fault("redis-full", f"Redis full for {AWAY_S:g} s", _redis_full, load_s=16),
    _clock("clock-back", "consumer's clock back 1 h", ClockStep(CONSUMER, -3_600)),
    _clock("relay-clock-ahead", "relay's clock 8 days ahead", ClockStep(ORDER, _LONGER_THAN_KEPT_S)),
    _clock("relay-clock-behind", "relay's clock 8 days behind", ClockStep(ORDER, -_LONGER_THAN_KEPT_S)),
    Fault(
        "poison",
        "poison, dead-letter service down",
        poison.arrives,
        load_s=14,
        prepare=poison.prepare,
        restore=poison.restore,
    ),
    Fault("worst-headers", "poison under headers as large as a frame", poison.with_the_worst_headers, load_s=8),
    Fault(
        "dead-letter-place-deleted",
        "dead letters' queue or topic deleted",
        furniture.dead_letter_place_deleted,
        load_s=16,
        restore=poison.restore,
    ),
    Fault(
        "stream-deleted",
        "consumer's queue or topic deleted",
        furniture.stream_deleted,
        load_s=20,
        prepare=furniture.rest_relay,
        restore=furniture.wake_relay,
    ),
    Fault(
        "permission-withdrawn",
        "RabbitMQ permits nothing for 30 s",
        furniture.permission_withdrawn,
        load_s=45,
        restore=furniture.permission_granted,
        brokers=("rabbit",),
    ),
    Fault("slow-webhook", "alerts' receiver never ends", webhook.never_ends, load_s=14, restore=poison.restore),
    Fault("two-relays", "two relays, the leader SIGKILL", _two_relays, load_s=14, restore=_remove_second_order),
    Fault("scale-consumers", "consumers added and removed", _scale, load_s=16, restore=_remove_consumers),
    Fault("rolling-restart", "rolling restart of all services", _rolling_restart, 24, unnoticed=True),
    *(fault for kind in KINDS for fault in kind.faults),
    Fault("node-sigkill", "one of three nodes SIGKILL", _node_killed, load_s=25, nodes=3),
)


def fault_named(name: str) -> Fault:
    """The fault of this name; raises StopIteration when there is none."""
    return next(fault for fault in FAULTS if fault.name == name)
