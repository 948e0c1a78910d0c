"""A forked process is what `python -m MODULE` would have been, and only what is ours is forked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.native import Ports
from deploy.native.program import Program, script
from deploy.native.site import Site
from deploy.native.supervision import FORKS_VARIABLE, INSTANCE_VARIABLE, Supervisor
from deploy.paths import REPOSITORY
from deploy.supervisord import Start, read_script
from experiment.stamping import STAMPED
from faults.kinds import KINDS
from tests.faults import sabotaged
from tests.preloaded import PRELOADED

SERVICE = [sys.executable, "-m", "services.order.app", "two words"]
MODULE = """
import json, os, signal, sys
print(json.dumps({
    "arguments": sys.argv[1:], "directory": os.getcwd(), "environment": dict(os.environ), "name": __name__,
    "handled": [int(n) for n in signal.valid_signals() if callable(signal.getsignal(n))],
    "ignored": [int(n) for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN],
    "path": sys.path[0] in ("", os.getcwd()),
}))
print("said", file=sys.stderr)
raise SystemExit(7)
"""
FORKING = """
import os, signal, sys
from deploy.supervisord import Start, become
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGCHLD, lambda *_: None)
child = os.fork()
if child == 0:
    become(Start(sys.argv[1], {"A": "1"}, "told", ("x", "y z")), {"A": "0", "B": "2", "PATH": os.environ["PATH"]})
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_a_program_of_ours_is_read_as_its_script_says() -> None:
    program = Program("order", SERVICE, {"TANDEM_A": 'it\'s 100 % "so"\nindeed', "TANDEM_B": ""})
    assert read_script(script(program)) == Start(
        str(REPOSITORY), dict(program.environment), "services.order.app", ("two words",)
    )


def test_whatever_module_may_run_as_a_service_is_forked() -> None:
    """Those that stamp, are played or are sabotaged as well: else each start costs its imports."""
    beside = [module for kind in KINDS for module in kind.modules.values() if module]
    played = {module for module, *_ in (*STAMPED.values(), *beside)}
    for module in {*played, sabotaged.__name__}:
        found = read_script(script(Program("order", [sys.executable, "-m", module, "order"])))
        assert found == Start(str(REPOSITORY), {}, module, ("order",))


@pytest.mark.parametrize(
    "program",
    [
        Program("redis", ["redis-server", "-m", "services.order.app"]),
        Program("watch", [sys.executable, "-m", "deploy.watch"]),
        Program("other-python", ["/usr/bin/python3", "-m", "services.order.app"]),
        Program("other-checkout", SERVICE, directory=Path("/elsewhere")),
        Program("not-tied", SERVICE, die_with_supervisor=None),
        Program("killed", SERVICE, die_with_supervisor="KILL"),
        Program("other-clock", SERVICE, {"LD_PRELOAD": "/usr/lib/faketime.so"}),
    ],
    ids=lambda program: program.name,
)
def test_what_is_not_ours_is_started_as_ever(program: Program) -> None:
    assert read_script(script(program)) is None


def test_a_forked_process_is_as_if_it_had_been_started(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(MODULE)
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}

    def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    started = run("-m", "told", "x", "y z", A="1", B="2")
    forked = run("-c", FORKING, str(tmp_path))
    assert (forked.returncode, forked.stderr) == (started.returncode, started.stderr) == (7, "said\n")
    as_forked, as_started = json.loads(forked.stdout), json.loads(started.stdout)
    assert as_forked.pop("environment") == {"A": "1", "B": "2", "PATH": os.environ["PATH"]}
    del as_started["environment"]
    assert as_forked["handled"] == [signal.SIGINT]
    inherited = {number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN}
    for told, how in product((as_forked, as_started), ("handled", "ignored")):
        told[how] = sorted({*told[how]} - ({*inherited, signal.SIGINT} - {signal.SIGPIPE, signal.SIGXFSZ}))
    assert as_forked == as_started


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """One that can fork, and has a program that tells how it was started."""
    monkeypatch.delenv(FORKS_VARIABLE)
    made = Supervisor(Site.open(tmp_path / "run", Ports.free_block()))
    made.launch(os.getpid(), forks=True)
    try:
        command = [sys.executable, "-m", "tests.unit.supervised", str(tmp_path / "told")]
        made.add_group("services", [Program("told", command, {"SAID": "it's 100 %"})], priority=20)
        yield made
    finally:
        made.shutdown()


def await_told(place: Path, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 30
    while not place.exists() or place.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [json.loads(line) for line in place.read_text().splitlines()]


def test_a_fork_looks_like_a_start_is_forked_again_when_killed_and_ends_with_its_supervisor(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.preload(["services.order.app"])
    supervisor.start("told")
    first = await_told(tmp_path / "told", 1)[0]
    process = psutil.Process(first["pid"])
    assert (first["forked"], first["said"]) == (True, "it's 100 %")
    assert supervisor.process("told")["pid"] == first["pid"]
    shown = " ".join(process.cmdline()).strip()
    assert shown == f"{sys.executable} -m tests.unit.supervised {tmp_path / 'told'}"
    assert Path(f"/proc/{process.pid}/comm").read_text() == f"{Path(sys.executable).name}\n"
    assert process.environ()[INSTANCE_VARIABLE] == str(tmp_path / "run")
    process.kill()
    again = await_told(tmp_path / "told", 2)[1]
    assert again["forked"]
    assert again["pid"] != first["pid"]
    supervisor.shutdown()
    assert not psutil.pid_exists(again["pid"])


def test_what_cannot_be_imported_is_said_and_services_start_as_ever(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.preload(["no_such_module"])
    supervisor.start("told")
    assert await_told(tmp_path / "told", 1)[0]["forked"] is False
    log = (tmp_path / "run" / "logs" / "supervisord.log").read_text()
    assert "services are not forked: ModuleNotFoundError: No module named 'no_such_module'" in log


def test_a_runtime_forks_no_services_unless_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is started as it would be elsewhere."""
    monkeypatch.delenv(FORKS_VARIABLE)
    supervisor = Supervisor(Site.open(tmp_path / "run", Ports.free_block()))
    supervisor.launch()
    try:
        supervisor.preload(["no_such_module"])  # not one that would try
        assert "no_such_module" not in (tmp_path / "run" / "logs" / "supervisord.log").read_text()
    finally:
        supervisor.shutdown()


def test_what_is_preloaded_is_there() -> None:
    missing = [name for name in PRELOADED if not _exists(name)]
    assert missing == []


def _exists(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
