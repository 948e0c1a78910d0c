"""Which containers `status` and `down` recognise, by what a stand-in for the `docker` command answers.

It lists the containers of each project and notes what it was asked; no engine runs here.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.stack import choice as stack
from deploy.stack import compose as containers
from deploy.stack.stack import is_healthy
from deploy.topology import BrokerName

QUIET = Steps(quiet=True)
DOCKER = """\
#!/bin/sh
here=${0%/*}
echo "$*" >> "$here/asked"
project=${*#*--project-name }
project=$here/${project%% *}.project
case "$*" in
"compose version"*) echo 2.29.1 ;;
*" up "*) exec /bin/sleep 60 ;;
*" down "*)
    while [ ! -e "$here/may-end" ]; do /bin/sleep 0.02; done
    echo "ended" >> "$here/asked"
    ;;
*" ps "*) if [ -f "$project" ]; then /bin/cat "$project"; fi ;;
esac
"""
UP_ON_NOBODYS_PORTS = """
import sys
from pathlib import Path
from deploy.stack import choice as stack, compose as containers
from deploy.command_line import main
containers.require_free = lambda _: None
stack.STACK_ROOT = Path(sys.argv[1])
sys.exit(main(["up", "rabbit"]))
"""


def row(name: str, **values: Any) -> dict[str, Any]:
    """A container that is well, as `docker compose ps` prints it."""
    return {"ID": name, "Service": name, "State": "running", "Health": "healthy", "Publishers": [], **values}


def nodes(file: Path) -> list[dict[str, Any]]:
    """The containers of a cluster file, with the ports that they publish."""
    found = []
    for name, service in yaml.safe_load(file.read_text())["services"].items():
        pairs = [published.split(":")[1:] for published in service["ports"]]
        published = [{"TargetPort": int(target), "PublishedPort": int(own)} for own, target in pairs]
        found.append(row(name, Publishers=published))
    return found


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], list[str]]]:
    """Give it the containers of each project; what it returns says what was asked of the command since."""

    def runs(**projects: list[dict[str, Any]]) -> Callable[[], list[str]]:
        command = tmp_path / "docker"
        command.write_text(DOCKER)
        command.chmod(0o755)
        (tmp_path / "may-end").touch()
        for name, rows in projects.items():
            lines = [json.dumps(values) for values in rows]
            (tmp_path / f"{name}.project").write_text("\n".join(lines))
        return lambda: (tmp_path / "asked").read_text().splitlines()

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("RUNTIME", raising=False)
    monkeypatch.setattr(stack, "STACK_ROOT", tmp_path / "stack")
    monkeypatch.setattr(containers, "_answers", lambda _: False)  # no service is asked
    return runs


@pytest.mark.parametrize(
    ("names", "broker"),
    [
        (["postgres", "rabbitmq", "order"], "rabbit"),
        (["postgres", "kafka", "order"], "kafka"),
        (["kafka-1", "kafka-2", "kafka-3", "postgres"], "kafka"),
        (["rabbitmq-2", "rabbitmq-3"], "rabbit"),
        (["postgres", "order"], None),
        ([], None),
    ],
)
def test_the_broker_is_recognised_by_its_containers_however_many_nodes_it_has(
    names: list[str], broker: str | None
) -> None:
    assert containers.broker_of(names) == broker


def test_a_cluster_as_part_of_the_stack_is_up_with_its_nodes_and_their_addresses(
    engine: Callable[..., Callable[[], list[str]]],
) -> None:
    engine(tandem=[row("postgres"), *nodes(containers.CLUSTER_FILES["kafka"])])

    state = stack.status()

    assert state["broker"] == "kafka"
    urls = {name: part["url"] for name, part in state["servers"].items() if name.startswith("kafka")}
    addresses = [f"127.0.0.1:{port}" for port in (24101, 24102, 24103)]
    assert urls == dict(zip(("kafka-1", "kafka-2", "kafka-3"), addresses, strict=True))
    assert all(state["servers"][name]["healthy"] for name in urls)
    assert containers.ComposeStack(QUIET).broker_settings() == {
        "broker": "kafka",
        "kafka_bootstrap": ",".join(addresses),
    }


@pytest.mark.parametrize("broker", ["rabbit", "kafka"])
def test_a_cluster_by_itself_is_seen_and_taken_down(
    engine: Callable[..., Callable[[], list[str]]], broker: BrokerName
) -> None:
    file = containers.CLUSTER_FILES[broker]
    project = yaml.safe_load(file.read_text())["name"]
    asked = engine(**{project: nodes(file)})

    state = stack.status()
    assert (state["broker"], len(state["servers"]), state["services"]) == (broker, 3, {})
    assert is_healthy(state)

    assert stack.down(QUIET)
    [said] = [line for line in asked() if " down" in line]
    assert said == f"compose -f {file} --project-name {project} down"


def test_a_node_that_is_starting_again_is_not_healthy(engine: Callable[..., Callable[[], list[str]]]) -> None:
    file = containers.CLUSTER_FILES["rabbit"]
    first, second, third = nodes(file)
    engine(**{"tandem-rabbitmq-cluster": [first, second, {**third, "State": "restarting", "Publishers": []}]})

    state = stack.status()

    assert not is_healthy(state)
    assert state["servers"]["rabbitmq-3"]["url"] == ""


def test_the_volumes_of_a_cluster_go_with_those_of_the_stack(
    engine: Callable[..., Callable[[], list[str]]],
) -> None:
    asked = engine(tandem=nodes(containers.CLUSTER_FILES["kafka"]))

    assert stack.down(QUIET, volumes=True)

    downs = [line for line in asked() if " down" in line]
    assert "--volumes" not in downs[0], "the services are stopped first, then the nodes, which they do not name"
    deleting = [line for line in downs if line.endswith("--volumes")]
    assert [line.split("--project-name ")[1].split()[0] for line in deleting] == [
        "tandem",
        "tandem-rabbitmq-cluster",
        "tandem-kafka-cluster",
    ]
    assert str(containers.CLUSTER_FILES["kafka"]) in deleting[0]


def test_nothing_is_up_when_the_engine_runs_nothing_of_ours(
    engine: Callable[..., Callable[[], list[str]]],
) -> None:
    engine()

    assert stack.status()["broker"] is None
    assert not stack.down(QUIET)


def await_line(file: Path, part: str) -> None:
    """Until the stand-in has noted a line that holds `part`."""
    deadline = time.monotonic() + 30
    while not file.exists() or part not in file.read_text():
        assert time.monotonic() < deadline, f"nobody asked for {part}"
        time.sleep(0.02)


def test_an_interrupted_up_takes_everything_down_however_often_it_is_interrupted(
    engine: Callable[..., Callable[[], list[str]]], tmp_path: Path
) -> None:
    asked = engine()
    (tmp_path / "may-end").unlink()
    with subprocess.Popen(
        [sys.executable, "-c", UP_ON_NOBODYS_PORTS, str(tmp_path / "stack")],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as up:
        try:
            await_line(tmp_path / "asked", " up ")
            up.send_signal(signal.SIGTERM)
            await_line(tmp_path / "asked", " down ")
            up.send_signal(signal.SIGTERM)
            os.killpg(up.pid, signal.SIGINT)  # as a terminal does
            assert up.stderr is not None
            while "still stopping" not in up.stderr.readline():
                assert up.poll() is None
            (tmp_path / "may-end").touch()
            _, said = up.communicate(timeout=30)
        finally:
            up.kill()

    assert asked()[-1] == "ended"
    assert said.endswith("interrupted; what this command had started is stopped\n")
    assert up.returncode == 130
