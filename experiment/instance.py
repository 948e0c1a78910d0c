"""Starts servers for one experiment and removes them with their data when it ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.birth import start_ticks
from deploy.native import Ports, Runtime
from deploy.native.site import Durability, read_state
from deploy.progress import Steps
from deploy.topology import BROKERS, SERVICES, BrokerName, ServerName
from experiment.containers import Contained, ContainerRuntime, Engine
from experiment.effects import Databases

_OWNER = "owner"
"""The file in which an instance says when the process that made it had started."""


def databases_of(runtime: Runtime, broker: BrokerName) -> Databases:
    """The databases of the set of services that is named after a broker; not connected yet."""
    return Databases({service: runtime.dsn(runtime.sets[broker].database(service)) for service in SERVICES})


def leftovers(run_root: Path, name: str) -> Iterator[Path]:
    """The data of earlier runs of the tool `name` that were killed before they could delete it."""
    for place in run_root.glob(f"{name}-[0-9]*"):
        pid = int(place.name.removeprefix(f"{name}-").split("-")[0])
        if not belongs_to(pid, place) and read_state(place):
            yield place


def remove_leftovers(run_root: Path, name: str) -> None:
    """Delete the data of earlier runs of the tool `name` that were killed before they could do it."""
    for place in leftovers(run_root, name):
        Runtime.attach(place).stop(remove=True)


def belongs_to(pid: int, place: Path) -> bool:
    """Whether the process that runs under this number made `place`: numbers are given again."""
    born = start_ticks(pid)
    if born is None or pid == os.getpid():
        return False
    owner = place / _OWNER
    return not owner.exists() or owner.read_text() == str(born)


@contextmanager
def instance(
    run_root: Path,
    name: str,
    steps: Steps,
    *,
    ports: Ports | None = None,
    servers: Collection[ServerName] = ("postgres", "redis", *BROKERS),  # no mail is sent while we measure
    durability: Durability = "usual",
    nodes: int = 1,
    contained: Contained | None = None,
) -> Iterator[Runtime]:
    """An instance for the tool `name`, which is stopped, and its data removed, on the way out.

    Its brokers have so many `nodes`. `contained` are servers that somebody started in containers, in place of all
    that is said of servers. Should this process be killed outright, the instance's own watch ends its processes.
    """
    root = run_root / f"{name}-{os.getpid()}"
    if contained is not None:
        runtime: Runtime = ContainerRuntime(root, contained, Engine(), steps)
    else:
        ports = ports or Ports.free_block(nodes=nodes)
        runtime = Runtime(root, ports, servers=servers, steps=steps, durability=durability)
    (root / _OWNER).write_text(str(start_ticks(os.getpid())))
    try:
        yield runtime
    finally:
        with steps.step("stopping everything"):
            _remove(runtime, steps)


def _remove(runtime: Runtime, steps: Steps) -> None:
    """What was measured is worth more than an empty disk: data that cannot be deleted is told, and no error."""
    try:
        runtime.stop(remove=True)
    except OSError as error:
        steps.say(f"{runtime.root} could not be deleted: {error}")


def keep_logs(runtime: Runtime, run_root: Path, name: str, steps: Steps) -> None:
    """Keep the logs of a run that found something, and say where."""
    kept = run_root / f"{name}-failed-logs"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(runtime.site.logs, kept)
    where = runtime.contained.kept_logs if isinstance(runtime, ContainerRuntime) else kept
    steps.say(f"the logs of this run are kept in {where}")
