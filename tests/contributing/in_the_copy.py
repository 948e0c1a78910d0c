"""What the tests of the recipes run inside the copy: `python -m tests.contributing.in_the_copy …`.

environment ROOT PROCESS   the settings of a service process on RabbitMQ in the instance under ROOT, as JSON
fault ROOT NAME            plays one fault on that instance, without load, and prints what it saw as JSON
conformance ROOT BROKER CHECK…   runs checks of the conformance suite on an adapter
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import psutil

from deploy.native import Ports, Runtime

INSTANCE = "recipes"
"""The name of the set that the services of the recipes belong to."""


def environment(root: str, process: str) -> dict[str, str]:
    """As the native runtime would start it."""
    runtime = Runtime.attach(Path(root))
    runtime.sets.clear()  # those of the other tests: this one asks as if it were alone
    return runtime.service_env(process, "rabbit", INSTANCE)


async def fault(root: str, name: str) -> dict[str, Any]:
    """Play it as `make faults` does; what PostgreSQL was like before, in the middle and after."""
    from experiment.clock import Clock
    from experiment.effects import Databases
    from experiment.progress_bar import ProgressBar
    from experiment.side import Side
    from experiment.workload import load_workload
    from faults.catalogue import fault_named
    from faults.proxy import Proxies
    from faults.run import LOAD
    from faults.scene import Scene

    runtime = Runtime.attach(Path(root))
    chosen = fault_named(name)
    side = Side("rabbit", runtime, load_workload(LOAD), Clock(), ProgressBar([]), Databases({}))
    scene = Scene(side, Proxies({}))

    def state() -> str:
        [pid, *_] = runtime.processes.pids("postgres")
        return psutil.Process(pid).status()

    seen = [state()]
    await chosen.prepare(scene)
    playing = asyncio.ensure_future(chosen.act(scene))
    try:
        await asyncio.sleep(1)
        seen.append(state())
        await playing
    finally:
        await chosen.restore(scene)
    seen.append(state())
    assert scene.began_s is not None
    assert scene.ended_s is not None
    return {"title": chosen.title, "seen": seen, "lasted_s": scene.ended_s - scene.began_s}


async def conformance(root: str, broker: str, *names: str) -> dict[str, str]:
    """Raises what a check raises; by check, what it claims."""
    from tests.conformance.catalogue import checks_for, claim_of
    from tests.conformance.harness import Harness

    runtime = Runtime(Path(root), Ports(25_000))  # for the addresses alone: nothing is started
    checks = {check.__name__: check for check in checks_for(broker)}  # type: ignore[arg-type]
    for name in names:
        async with Harness(runtime, broker) as harness:  # type: ignore[arg-type]
            await checks[name](harness)
    return {name: claim_of(checks[name]) for name in names}


def main(what: str, *arguments: str) -> None:
    """Print one JSON document."""
    if what == "environment":
        print(json.dumps(environment(*arguments)))
    elif what == "fault":
        print(json.dumps(asyncio.run(fault(*arguments))))
    else:
        print(json.dumps(asyncio.run(conformance(*arguments))))


if __name__ == "__main__":
    main(*sys.argv[1:])
