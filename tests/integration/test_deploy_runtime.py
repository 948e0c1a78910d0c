"""The native runtime on real servers: what is started answers, and what is stopped or orphaned is gone."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.errors import PortTakenError, StartError
from deploy.native import Ports, Runtime
from deploy.native.program import Program
from deploy.native.site import Site
from deploy.native.supervision import INSTANCE_VARIABLE, Supervisor
from deploy.paths import REPOSITORY
from deploy.progress import Steps

pytestmark = pytest.mark.timeout(600)  # the first run on a machine installs the servers

START_AND_TELL = """
import sys
from pathlib import Path
from deploy.native import Ports, Runtime
runtime = Runtime(Path(sys.argv[1]), Ports.free_block(), servers=sys.argv[2].split(","))
runtime.start_servers()
print("up", flush=True)
sys.stdin.read()
"""

HOSTILE = {
    "PGSSLMODE": "require",
    "PGTARGETSESSIONATTRS": "standby",
    "PGSERVICE": "nosuch",
    "PYTHONPATH": str(REPOSITORY),  # else Python would not find the script's imports in its working directory
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "LC_ALL": "C",
    "http_proxy": "http://127.0.0.1:1",
    "RABBITMQ_NODENAME": "other@nowhere",
    "RABBITMQ_CONFIG_FILE": "/nowhere",
    "ERL_FLAGS": "-nosuchflag",
}
ODD_NAME = 'it\'s a "Zoë" [1], ;#100%'

LEAVE_AND_TELL = """
trap 'sleep {leaving_s}; echo {name} >> {told}; exit' TERM
touch {told}.{name}
while :; do sleep 0.1; done
"""


def processes_of(root: Path) -> list[psutil.Process]:
    """The processes that carry the instance's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(INSTANCE_VARIABLE) == str(root) and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def await_none_left(root: Path, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while (left := processes_of(root)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, [process.cmdline() for process in left]


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with Runtime(
        tmp_path / "run", Ports.free_block(), servers={"postgres", "redis"}, steps=Steps(quiet=True)
    ) as made:
        yield made
    made.site.remove()


def test_servers_answer_when_started_come_back_when_killed_and_are_gone_when_stopped(runtime: Runtime) -> None:
    runtime.start_servers()
    assert runtime.processes.is_healthy("postgres")
    assert runtime.processes.is_healthy("redis")

    killed = runtime.processes.kill("postgres") + runtime.processes.kill("redis")
    assert not [pid for pid in killed if psutil.pid_exists(pid)]
    runtime.processes.wait_ready("postgres")
    runtime.processes.wait_ready("redis")
    assert not set(killed) & set(runtime.processes.pids("postgres") + runtime.processes.pids("redis"))

    runtime.stop()
    await_none_left(runtime.root, timeout_s=0)


def test_a_stopped_process_stays_down_until_it_is_started(runtime: Runtime) -> None:
    runtime.start_servers()

    runtime.processes.stop("redis")
    assert not runtime.processes.is_healthy("redis")
    assert runtime.processes.pids("redis") == []

    runtime.processes.start("redis")
    assert runtime.processes.is_healthy("redis")


async def test_it_can_be_used_inside_an_event_loop(runtime: Runtime) -> None:
    runtime.start_servers()
    runtime.ensure_databases(["order", "order"])

    assert runtime.processes.is_healthy("postgres")


def test_data_and_password_outlive_a_restart(runtime: Runtime) -> None:
    runtime.start_servers()
    before = runtime.server_urls()
    runtime.stop()

    again = Runtime(runtime.root, runtime.site.ports, servers={"postgres", "redis"}, steps=Steps(quiet=True))
    again.start_servers()

    assert again.server_urls() == before
    assert again.processes.is_healthy("postgres")


def test_a_taken_port_is_named_and_nothing_is_started(runtime: Runtime) -> None:
    with (
        socket.create_server(("127.0.0.1", runtime.site.ports.redis)),
        pytest.raises(
            PortTakenError, match=rf"port {runtime.site.ports.redis} \(Redis\) is already taken by .*pid"
        ),
    ):
        runtime.start_servers()

    await_none_left(runtime.root, timeout_s=0)


def test_a_server_that_does_not_come_up_is_named_with_its_log_and_nothing_is_left(runtime: Runtime) -> None:
    runtime.start_servers()
    runtime.stop()
    (cluster,) = [path for path in (runtime.root / "data/postgres").resolve().iterdir() if path.is_dir()]
    (cluster / "global/pg_control").unlink()

    with pytest.raises(StartError, match=r"postgres does not start(.|\n)*pg_control"):
        runtime.start_servers()

    await_none_left(runtime.root, timeout_s=0)


@pytest.mark.parametrize("servers", ["postgres,redis", "postgres,rabbit"])
def test_servers_start_from_any_shell_and_end_with_the_process_that_wanted_them(
    tmp_path: Path, servers: str
) -> None:
    root = tmp_path / ODD_NAME / "run"
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_TELL, str(root), servers],
        cwd=REPOSITORY,
        env={**os.environ, **HOSTILE},
        umask=0o077,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        assert processes_of(root)
        parent.kill()

    await_none_left(root)
    Runtime.attach(root).stop(remove=True)


def test_servers_do_not_outlive_a_killed_supervisord(tmp_path: Path) -> None:
    runtime = Runtime(
        tmp_path / "run", Ports.free_block(), servers={"postgres", "redis", "rabbit"}, steps=Steps(quiet=True)
    )
    runtime.start_servers()
    supervisord = int((runtime.root / "supervisord.pid").read_text())

    os.kill(supervisord, signal.SIGKILL)

    await_none_left(runtime.root)
    runtime.stop(remove=True)


def test_no_server_is_asked_to_end_before_the_slowest_service_has(tmp_path: Path) -> None:
    told = tmp_path / "told"
    site = Site.open(tmp_path / "run", Ports.free_block())
    supervisor = Supervisor(site)
    supervisor.launch(os.getpid())
    for name, leaving_s, priority in (("server", 0, 10), ("service", 2, 20)):
        script = tmp_path / f"{name}.sh"
        script.write_text(LEAVE_AND_TELL.format(name=name, leaving_s=leaving_s, told=told))
        supervisor.add_group(f"{name}s", [Program(name, ["sh", str(script)])], priority)
        supervisor.start(name)
    deadline = time.monotonic() + 30
    while not all(told.with_suffix(f".{name}").exists() for name in ("server", "service")):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    supervisor.shutdown()

    assert told.read_text().split() == ["service", "server"]
    await_none_left(site.root, timeout_s=0)
    site.remove()
