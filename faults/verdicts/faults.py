"""The faults that verdicts alone have to bear; what else is broken is broken under them, too.

One process of the fraud service answers, judges, publishes, fires its schedules and runs its jobs.
"""

from __future__ import annotations

from experiment.side import StalledError
from faults import servers
from faults.deaths import restores
from faults.fault import Fault
from faults.scene import Scene
from faults.verdicts.side import LIST, PROCESS, VerdictSide
from faults.verdicts.threats import ListServer, alerts_taken

_ORDERS = 4_000
"""Of yesterday, without a verdict: the batch has twenty checkpoints."""
_KILLS = 2
"""An attempt each: the batch has more."""
_ALERT = "fraud.alert"
_OLD, _NEW = ("203.0.113.1/32", "@old.example"), ("203.0.113.2/32", "203.0.113.3/32", "@new.example")


def _verdicts(scene: Scene) -> VerdictSide:
    company = scene.company(VerdictSide)
    if company is None:
        raise StalledError("no verdicts are looked at beside the orders")
    return company


async def _batch_killed(scene: Scene) -> None:
    """The service is killed behind a checkpoint of the night's batch, comes back, and is killed behind another."""
    async with _verdicts(scene).batch(_ORDERS) as batch:
        began_s, at = None, 0
        for _ in range(_KILLS):
            at = await batch.beyond(at)
            await scene.kill(scene.process(PROCESS))
            began_s = began_s or scene.began_s
        scene.began_s = began_s


async def _batch_cut_off(scene: Scene) -> None:
    """The network to PostgreSQL is cut behind a checkpoint, and the broker is restarted behind another."""
    async with _verdicts(scene).batch(_ORDERS) as batch:
        at = await batch.beyond(0)
        await servers.cut(scene, "postgres")
        began_s = scene.began_s
        await batch.beyond(at)
        await servers.broker_restarted(scene)
        scene.began_s = began_s


async def _mended(scene: Scene) -> None:
    scene.proxies.mend("postgres")


async def _list_gone(scene: Scene) -> None:
    """The list's server is gone for one fetch; in the next the service is killed with half of a new list."""
    verdicts, server, process = _verdicts(scene), ListServer(), scene.process(PROCESS)
    await server.open()
    try:
        async with alerts_taken() as (alerts_url, alerts):
            settings = {"TANDEM_FRAUD_THREATS_URL": server.url, "TANDEM_ALERT_WEBHOOK_URL": alerts_url}
            server.offer(*_OLD)
            await scene.stand_in(PROCESS, settings)
            if await verdicts.ended(await verdicts.run(LIST)) != "succeeded":
                raise StalledError("the threat list is not fetched though nothing is broken yet")
            await _in_force(verdicts, _OLD, "before anything was broken")
            scene.begin()
            await server.close()
            verdicts.to_fail.add(job_id := await verdicts.run(LIST))
            await verdicts.ended(job_id)
            await _in_force(verdicts, _OLD, "while its server was gone")
            if alerts != [_ALERT]:
                verdicts.lists.append(f"while its server was gone, the alerts were {alerts}")
            server.offer(*_NEW, held=True)
            await server.open()
            job_id = await verdicts.run(LIST)
            await server.until_asked()
            await scene.call(scene.runtime.processes.kill, f"{process}-stand-in")
            await _in_force(verdicts, _OLD, "when half of a new one had come")
            server.offer(*_NEW)
            await scene.call(scene.runtime.processes.stop_extra, f"{process}-stand-in")
            await scene.stand_in(PROCESS, settings)
            scene.end()
            await verdicts.ended(job_id)  # that it succeeded, the check says
            await _in_force(verdicts, _NEW, "after all")
    finally:
        await server.close()
    await scene.restored(PROCESS)


async def _in_force(verdicts: VerdictSide, entries: tuple[str, ...], when: str) -> None:
    """Note, for the check, if another list is in force."""
    found = await verdicts.threats()
    if found != set(entries):
        verdicts.lists.append(f"{when}, {sorted(found)} were listed and not {sorted(entries)}")


VERDICT_FAULTS: tuple[Fault, ...] = (
    Fault("fraud-batch-sigkill", "verdicts: SIGKILL in the night's batch", _batch_killed, load_s=24),
    Fault(
        "fraud-batch-cut",
        "verdicts: cut and restart in the batch",
        _batch_cut_off,
        load_s=36,
        restore=_mended,
    ),
    Fault(
        "threat-list-gone",
        "verdicts: list server gone, SIGKILL",
        _list_gone,
        load_s=40,
        restore=restores(PROCESS),
        brokers=("kafka",),
    ),
)
