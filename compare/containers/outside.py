"""Runs a comparison in containers, from outside: makes them, shows what the harness says, fetches its report."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from compare.containers.crew import Crew
from compare.containers.errand import Errand
from compare.ending import RefusedError
from deploy.native import Ports
from deploy.native.ports import DEFAULT_SERVER_BLOCK
from deploy.progress import Steps
from deploy.stack.compared import ServerContainer, server_containers
from deploy.stack.docker import Engine, engine
from deploy.stack.lock import alone
from experiment.containers import Contained, Limits
from experiment.facts import revision
from experiment.own_brokers import OwnBrokers
from experiment.profiles import PROFILES
from experiment.signals import ignore_signals
from experiment.workload import Workload

_KEPT_LOGS = "compare-failed-logs"
_LOCK_WAIT_MAX_S = 1.0
_KNOWN_CODES = (0, 1, 2, 130)


def engine_for(workload: Workload, own: OwnBrokers) -> Engine | None:
    """The engine that a comparison is to use; None where it is to run natively: RUNTIME says which.

    Raises `RefusedError` where that cannot be.
    """
    wanted = os.environ.get("RUNTIME", "")
    if wanted not in ("", "docker", "native"):
        raise RefusedError(f"RUNTIME must be docker or native, not {wanted!r}")
    if wanted != "docker":
        return None
    if own.where:
        raise RefusedError("RUNTIME=docker starts both brokers: on brokers of one's own, leave it out")
    if PROFILES[workload.profile].nodes > 1:
        raise RefusedError(f"the profile {workload.profile} is of several nodes, which run without RUNTIME=docker")
    found = engine()
    if found is None:
        raise RefusedError("RUNTIME=docker was asked for, but no Docker engine answers")
    return found


def run_in_containers(
    found: Engine, workload: Workload, command: str, run_root: Path, take: Callable[[Path], None]
) -> int:
    """Run the comparison on an engine, and leave nothing there but the images; returns its exit code.

    `take` is given the directory of the report, if there is one, which is gone afterwards. Raises `DeployError`
    when something cannot be started, and `Interrupted`.
    """
    steps, ports, password = Steps(), Ports(DEFAULT_SERVER_BLOCK), secrets.token_hex(16)
    with alone(run_root / "compare-docker.lock", "compare", steps, wait_max_s=_LOCK_WAIT_MAX_S):
        servers = server_containers(ports, PROFILES[workload.profile].durability, password, found.cpus)
        crew = Crew(found, servers, steps)
        contained = Contained(
            names=crew.names,
            block=ports.block,
            password=password,
            durability=PROFILES[workload.profile].durability,
            versions={name: each.version for name, each in servers.items()},
            settings={name: dict(each.settings) for name, each in servers.items()},
            limits={name: _limits(each) for name, each in servers.items()},
            engine=found.name,
            kept_logs=str(run_root / _KEPT_LOGS),
        )
        errand = Errand(workload=workload, command=command, revision=revision(), contained=contained)
        with tempfile.TemporaryDirectory(prefix="compare-report-", dir=run_root) as place:
            report = Path(place) / "report"
            code, there = _run(crew, errand, run_root / _KEPT_LOGS, report)
            if there:
                take(report)
    if code in _KNOWN_CODES:
        return code
    print(f"compare: the harness was ended from outside, with exit code {code}", file=sys.stderr)
    return 1


def _run(crew: Crew, errand: Errand, kept_logs: Path, report: Path) -> tuple[int, bool]:
    """The exit code of the harness, and whether it left a report; no container is left."""
    crew.remove()  # what a run left that was killed outright
    try:
        crew.start(errand.model_dump_json())
        code = crew.follow()
        if code:
            crew.keep_logs(kept_logs)
        return code, crew.fetch_report(report)
    finally:
        ignore_signals()
        crew.remove()


def _limits(container: ServerContainer) -> Limits:
    return Limits(image=container.image, cpus=container.cpus, memory_mib=container.memory_bytes >> 20)
