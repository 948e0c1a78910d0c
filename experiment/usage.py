"""Measures CPU time, memory and bytes written of what takes part, from the kernel's accounts.

Those of servers in containers are asked of the engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import psutil

from deploy.native import BrokerName, Runtime
from deploy.native.servers.table import process_names
from deploy.topology import ServerName
from experiment.containers import Account, ContainerRuntime
from experiment.disk import flushes, stored_bytes

GENERATOR = "load_generator"
OTHERS = "other_processes"
STOLEN = "stolen"
"""What the hypervisor gave to other machines while this one had work to do (`steal` in proc(5))."""
_PRESSURE = Path("/proc/pressure/io")
_FORGET_PEAK = "5"
"""What /proc/<pid>/clear_refs takes to begin anew with the peak of resident memory (proc(5))."""


@dataclass(frozen=True, slots=True)
class Details:
    """What was used between two moments, besides CPU by group.

    `process_cpu_s` by process of a service; `written_bytes` to the disk by server, by processes that still run, of
    those of which it is known;
    `stalled_s`: for how long some process of the machine waited for a disk (0 where the kernel does not say);
    `disk_flushes`: how often the run's disk was told to keep what it has, by anybody (None: not known);
    `stored_bytes`: by how much the broker's files became more (None: they are not here).
    """

    process_cpu_s: Mapping[str, float] = field(default_factory=dict)
    written_bytes: Mapping[str, int] = field(default_factory=dict)
    stalled_s: float = 0.0
    disk_flushes: int | None = None
    stored_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since each process began, by group, and of the whole machine (`stolen_s` is part of that); the
    broker's memory at its highest since `forget_peak`. A broker that is somebody's own has no group and no memory.
    """

    at_s: float
    cpu_s: Mapping[str, float]
    machine_cpu_s: float
    broker_memory_bytes: int | None
    details: Details
    stolen_s: float = 0.0
    supervised: Mapping[ServerName, tuple[int, ...]] = field(default_factory=dict)
    """The supervised process of each node of each server that runs as processes here; 0 for one that is down."""

    def since(self, earlier: Usage) -> dict[str, float]:
        """CPU seconds by group between two moments. `other_processes` is what the machine did besides, `stolen`
        what it was not given."""
        spent = {name: round(self.cpu_s[name] - earlier.cpu_s[name], 3) for name in self.cpu_s}
        spent[STOLEN] = round(max(0.0, self.stolen_s - earlier.stolen_s), 3)
        others = self.machine_cpu_s - earlier.machine_cpu_s - sum(spent.values())
        return {**spent, OTHERS: round(max(0.0, others), 3)}

    def details_since(self, earlier: Usage) -> Details:
        """The same of everything else."""
        now, then = self.details, earlier.details
        return Details(
            {
                name: round(max(0.0, used - then.process_cpu_s.get(name, 0.0)), 3)
                for name, used in now.process_cpu_s.items()
            },
            {name: max(0, count - then.written_bytes.get(name, 0)) for name, count in now.written_bytes.items()},
            round(now.stalled_s - then.stalled_s, 3),
            _difference(now.disk_flushes, then.disk_flushes),
            _difference(now.stored_bytes, then.stored_bytes),
        )


def _difference(now: int | None, then: int | None) -> int | None:
    return None if now is None or then is None else now - then


def take_usage(runtime: Runtime, broker: BrokerName, at_s: float) -> Usage:
    """What every group of processes has used so far: each server, each set of services, this process. Blocks."""
    supervised: dict[ServerName, tuple[int, ...]] = {}
    disk_flushes: int | None = None
    stored: int | None = None
    if isinstance(runtime, ContainerRuntime):
        servers = runtime.accounts()
        at_s = time.monotonic()  # an engine takes up to a second, and tells what is at its end
    else:
        disk_flushes, stored = flushes(runtime.root), _stored_bytes(runtime, broker)
        nodes = {name: _nodes(runtime, name) for name in runtime.servers}
        supervised = {name: tuple(pids[0] if pids else 0 for pids in each) for name, each in nodes.items()}
        servers = {name: _account(list(chain(*each)), peak=name == broker) for name, each in nodes.items()}
    services = {
        row.name: runtime.processes.pids(row.name)
        for service_set in runtime.sets.values()
        for row in service_set.processes
    }
    groups: dict[str, list[int]] = {}
    for name, service_set in runtime.sets.items():
        groups[f"{name}_services"] = [pid for row in service_set.processes for pid in services[row.name]]
    groups[GENERATOR] = [os.getpid()]
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    return Usage(
        at_s=at_s,
        cpu_s={
            **{name: account.cpu_s for name, account in servers.items()},
            **{name: _all_cpu_s(pids) for name, pids in groups.items()},
        },
        machine_cpu_s=sum(machine[:8]) - idle,  # the fields after the eighth are counted in the first two already
        broker_memory_bytes=servers[broker].memory_bytes if broker in servers else None,
        details=Details(
            {name: _all_cpu_s(pids) for name, pids in services.items()},
            {name: each.written_bytes for name, each in servers.items() if each.written_bytes is not None},
            _stalled_s(),
            disk_flushes,
            stored,
        ),
        stolen_s=getattr(machine, "steal", 0.0),
        supervised=supervised,
    )


def _account(pids: Sequence[int], *, peak: bool) -> Account:
    """Of a server that runs as processes here; its highest memory where it is asked for."""
    return Account(
        _all_cpu_s(pids),
        sum(_peak_bytes(pid) for pid in pids) if peak else None,
        sum(_written_bytes(pid) for pid in pids),
    )


def forget_peak(runtime: Runtime, broker: BrokerName) -> None:
    """Begin anew with the broker's highest memory; where that is refused, it counts from the broker's start."""
    if isinstance(runtime, ContainerRuntime):
        runtime.forget_highest(broker)
    if broker not in runtime.servers:
        return
    for pid in chain(*_nodes(runtime, broker)):
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(_FORGET_PEAK)


def _nodes(runtime: Runtime, name: ServerName) -> list[list[int]]:
    """The processes of each node of a server, the supervised one first."""
    return [runtime.processes.pids(process) for process in process_names(runtime.site, name)]


def _all_cpu_s(pids: Sequence[int]) -> float:
    return sum(_cpu_s(pid, first=pid == pids[0]) for pid in pids)


def _cpu_s(pid: int, *, first: bool) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # The first is the parent: what its ended children used is in its account (PostgreSQL's backends).
    ended = times.children_user + times.children_system if first and pid != os.getpid() else 0.0
    return float(times.user + times.system + ended)


def _peak_bytes(pid: int) -> int:
    """The highest resident memory, or the present one where the kernel does not keep it."""
    for line in _lines(f"/proc/{pid}/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _written_bytes(pid: int) -> int:
    found = (line for line in _lines(f"/proc/{pid}/io") if line.startswith("write_bytes:"))
    return int(next(found, "write_bytes: 0").split()[1])


def _stored_bytes(runtime: Runtime, broker: BrokerName) -> int | None:
    """What the broker's files take, of all its nodes; None where it is not one of the run's servers."""
    if broker not in runtime.servers:
        return None
    data = runtime.root / "data"
    return sum(stored_bytes(data / process) for process in process_names(runtime.site, broker))


def _stalled_s() -> float:
    found = (line for line in _lines(_PRESSURE) if line.startswith("some"))
    return int(next(found, "total=0").rpartition("=")[2]) / 1e6


def _lines(path: str | Path) -> Iterable[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
