"""What is broken while a crowd asks: the wallet's processes, one after the other, and its servers.

Two hundred other clients send money meanwhile, where transfers run beside the orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from deploy.topology import BrokerName
from experiment.side import StalledError
from faults import servers
from faults.distributions import apart
from faults.distributions.apart import API, RELAY, WORKER
from faults.distributions.crowd import AT_ONCE, PATIENCE_FOR_ALL_S, Crowd
from faults.distributions.side import DistributionSide
from faults.fault import Fault
from faults.scene import Scene
from faults.transfers.side import TransferSide
from shared import failpoints

_TRANSFERS_EACH = 2
_ASKERS_DIE = (
    f"{failpoints.REQUEST_SENT}=kill@{3 * AT_ONCE // 4}",  # many are asked about, nobody is told
    f"{failpoints.REPLY_RECEIVED}=kill@{AT_ONCE // 2}",  # committed and answered, nobody is told
)
_WORKERS_DIE = (
    f"{failpoints.BEFORE_EFFECT}:share=kill@{{batches}}",  # before anything is locked
    f"{failpoints.AFTER_EFFECT}:share=kill@{{batches}}",  # posted, not committed
    f"{failpoints.ANSWERED}=kill@30",  # decided, not committed
    f"{failpoints.BEFORE_REPLY}=kill@30",  # committed, the requests not settled, nobody told
)
_BATCHES: Mapping[BrokerName, int] = {"rabbit": 3, "kafka": 3 + AT_ONCE // 20}
"""Each has decided on some before. On Kafka a worker first finds what all of them asked for while the dead one's
session lasted, and whose time is over; RabbitMQ drops that."""
_RELAYS_DIE = (f"{failpoints.BEFORE_PUBLISH}=kill", f"{failpoints.AFTER_PUBLISH}=kill")
_FEW_AT_A_TIME = {"TANDEM_BATCH_MAX": "20", "TANDEM_TRANSACTIONS_MAX": "1"}
"""All the workers that die together decide on less than there is, so that the last finds somebody who asks."""
_STEADILY = {"TANDEM_RATE_LIMIT_PER_S": "wallet.share=100"}
"""So the crowd is not served before the servers have failed."""
_FLUSHED, _CUT, _BROKER_RESTARTED, _POSTGRES_RESTARTED = 100, 250, 400, 550
"""How many of the crowd are told when each happens."""


async def _processes_apart(scene: Scene) -> None:
    """The one that is asked dies first; those who decide and publish are sound, at first."""
    await apart.beside(scene, WORKER, settings=_FEW_AT_A_TIME)
    await apart.beside(scene, RELAY)
    await apart.asked(scene, API, _ASKERS_DIE[0])


async def _processes_die(scene: Scene) -> None:
    wallet = scene.process(apart.WALLET)
    async with _crowded(scene) as crowd:
        scene.begin()
        await apart.dead(scene, f"{wallet}-stand-in")
        for place in _ASKERS_DIE[1:]:
            await apart.dead(scene, await apart.asked(scene, API, place, wait=False))
        for role in (WORKER, RELAY):
            await apart.kill(scene, f"{wallet}-{role}")
        await apart.asked(scene, API)
        for place in _WORKERS_DIE:
            failpoint = place.format(batches=_BATCHES[scene.broker])
            await apart.dead(scene, await apart.beside(scene, WORKER, failpoint, _FEW_AT_A_TIME, wait=False))
        crowd.require_askers()
        for place in _RELAYS_DIE:
            await apart.dead(scene, await apart.beside(scene, RELAY, place, wait=False))
        await apart.together(scene)
        scene.end()


async def _served_steadily(scene: Scene) -> None:
    await scene.stand_in(apart.WALLET, _STEADILY)


async def _servers_fail(scene: Scene) -> None:
    async with _crowded(scene) as crowd:
        began_s = scene.side.clock.now_s()
        await crowd.until_told(_FLUSHED)
        await servers.redis_flushed(scene)
        await crowd.until_told(_CUT)
        await servers.cut(scene, "postgres")
        await crowd.until_told(_BROKER_RESTARTED)
        await servers.broker_restarted(scene)
        await crowd.until_told(_POSTGRES_RESTARTED)
        await servers.restarted("postgres")(scene)
        scene.began_s = began_s


async def _servers_mended(scene: Scene) -> None:
    scene.proxies.mend("postgres")
    await apart.together(scene)


@asynccontextmanager
async def _crowded(scene: Scene) -> AsyncIterator[Crowd]:
    """A crowd asks, and two hundred clients send money, from here on; on leaving, until all are told.

    Raises `StalledError` when nothing can be given to it.
    """
    distributions, transfers = scene.company(DistributionSide), scene.company(TransferSide)
    assert distributions is not None, "a fault of distributions is played beside them"
    crowd = Crowd(distributions)
    await crowd.gather()
    tasks = [asyncio.create_task(crowd.ask())]
    if transfers is not None:
        sending = transfers.ask_at_once(AT_ONCE, _TRANSFERS_EACH, PATIENCE_FOR_ALL_S)
        tasks.append(asyncio.create_task(sending))
    try:
        yield crowd
        await asyncio.gather(*tasks)
    except StalledError:
        for task in tasks:
            if task.done():
                task.result()  # what it ran into, if it did, is why nothing more was reached
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


CROWD_FAULTS: tuple[Fault, ...] = (
    Fault(
        "crowd-sigkills",
        "crowd: API, worker, relay SIGKILL",
        _processes_die,
        load_s=60,
        prepare=_processes_apart,
        restore=apart.together,
    ),
    Fault(
        "crowd-servers",
        "crowd: Redis, PostgreSQL, broker fail",
        _servers_fail,
        load_s=60,
        prepare=_served_steadily,
        restore=_servers_mended,
    ),
)
