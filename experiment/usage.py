"""Measures CPU time and memory of the processes that take part, from the kernel's accounts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from deploy.native import BrokerName, Runtime

GENERATOR = "load_generator"
OTHERS = "other_processes"


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since each process began, by group, and of the whole machine; the broker's memory now."""

    at_s: float
    cpu_s: Mapping[str, float]
    machine_cpu_s: float
    broker_memory_bytes: int

    def since(self, earlier: Usage) -> dict[str, float]:
        """CPU seconds by group between two moments. `other_processes` is what the machine did besides."""
        spent = {name: round(self.cpu_s[name] - earlier.cpu_s[name], 3) for name in self.cpu_s}
        others = self.machine_cpu_s - earlier.machine_cpu_s - sum(spent.values())
        return {**spent, OTHERS: round(max(0.0, others), 3)}


def take_usage(runtime: Runtime, broker: BrokerName, at_s: float) -> Usage:
    """What every group of processes has used so far: each server, each set of services, this process. Blocks."""
    groups: dict[str, list[int]] = {name: runtime.processes.pids(name) for name in runtime.servers}
    for name, service_set in runtime.sets.items():
        groups[f"{name}_services"] = [
            pid for row in service_set.processes for pid in runtime.processes.pids(row.name)
        ]
    groups[GENERATOR] = [os.getpid()]
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    return Usage(
        at_s=at_s,
        cpu_s={name: sum(_cpu_s(pid, first=pid == pids[0]) for pid in pids) for name, pids in groups.items()},
        machine_cpu_s=sum(machine[:8]) - idle,  # the fields after the eighth are counted in the first two already
        broker_memory_bytes=_memory_bytes(groups[broker]),
    )


def _cpu_s(pid: int, *, first: bool) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # The first is the parent: what its ended children used is in its account (PostgreSQL's backends).
    ended = times.children_user + times.children_system if first and pid != os.getpid() else 0.0
    return float(times.user + times.system + ended)


def _memory_bytes(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
