"""The Compose runtime: the same commands, carried out by `docker compose`."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from deploy.errors import DeployError
from deploy.native.install.system import last_lines
from deploy.native.ports import Ports, require_free
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.topology import BROKERS, PROCESSES, SERVICES, BrokerName, servers_for

JAEGER_URL = "http://127.0.0.1:16686"
COMPOSE_FILE = REPOSITORY / "deploy" / "compose" / "compose.yml"
CLUSTER_FILES: dict[BrokerName, Path] = {
    "rabbit": REPOSITORY / "deploy" / "rabbitmq-cluster.yml",
    "kafka": REPOSITORY / "deploy" / "kafka-cluster.yml",
}
_PROJECT = "tandem"
_COMPOSE_MIN = (2, 20)  # `required: false` under depends_on
_UP_TIMEOUT_S = 1200
_DOWN_TIMEOUT_S = 300  # the longest TANDEM_SHUTDOWN_GRACE_S of the services, then the servers, and some
_QUICK_TIMEOUT_S = 30
_END_TIMEOUT_S = 10
_SERVER_NAMES = {"rabbit": "rabbitmq"}  # where the Compose file's name differs from ours
_CLIENT_PORTS = {"rabbit": 5672, "kafka": 9092}  # within the containers


def is_chosen() -> bool:
    """Whether the stack runs in containers: RUNTIME=docker|native decides, else whether an engine answers.

    Raises DeployError for another value of RUNTIME, or when docker is forced and not there.
    """
    forced = os.environ.get("RUNTIME", "")
    if forced not in ("", "docker", "native"):
        raise DeployError(f"RUNTIME must be docker or native, not {forced!r}")
    if forced == "native":
        return False
    available = _engine_answers() and _compose() is not None
    if forced == "docker" and not available:
        raise DeployError("RUNTIME=docker was asked for, but no Docker engine with Compose 2.20 or newer answers")
    return available


def up(broker: BrokerName, steps: Steps) -> None:
    """Build and start everything and wait for the health checks; on failure everything is taken down again."""
    require_free({f"HTTP of {row.name}": row.http_port for row in PROCESSES} | _published_ports(broker))
    try:
        with steps.step(f"building and starting the containers on {broker}"):
            _run(broker, "--profile", broker, "up", "-d", "--build", "--wait", timeout_s=_UP_TIMEOUT_S)
    except DeployError as error:
        try:
            said = _last_words()
        finally:
            down(steps)
        raise DeployError(f"{error}\n{said}".rstrip()) from error
    except BaseException:
        down(steps)
        raise


def down(steps: Steps, *, volumes: bool = False) -> None:
    """Stop and remove the containers; the volumes stay unless told otherwise."""
    with steps.step("stopping the containers"):
        _run("rabbit", "--profile", "*", "down", "--remove-orphans", timeout_s=_DOWN_TIMEOUT_S)
        if volumes:  # also those of kafka-cluster.yml, which may have been part of the project
            files = [COMPOSE_FILE, CLUSTER_FILES["kafka"]]
            _run("rabbit", "--profile", "*", "down", "--volumes", timeout_s=_DOWN_TIMEOUT_S, files=files)


def down_clusters(steps: Steps, *, volumes: bool = False) -> bool:
    """As `down`, for the clusters that run by themselves; False when there were none."""
    running = clusters()
    for broker in BROKERS if volumes and _is_there() else running:
        with steps.step(f"stopping the cluster of {CLUSTER_FILES[broker].name}"):
            also = ["--volumes"] if volumes else []
            _run(broker, "down", *also, timeout_s=_DOWN_TIMEOUT_S, **_cluster(broker))
    return bool(running)


def running_broker() -> BrokerName | None:
    """The broker of the stack's containers, one node or more; None when there are none or there is no engine."""
    return broker_of({row["Service"] for row in _containers()}) if _is_there() else None


def broker_of(names: Collection[str]) -> BrokerName | None:
    """The broker among containers that are called so."""
    for broker in BROKERS:
        if _nodes(broker, names):
            return broker
    return None


def clusters() -> dict[BrokerName, list[dict[str, Any]]]:
    """The containers of the cluster files that run as projects of their own, without services."""
    if not _is_there():
        return {}
    found = {broker: _containers(**_cluster(broker)) for broker in BROKERS}
    return {broker: rows for broker, rows in found.items() if rows}


def status(broker: BrokerName) -> dict[str, Any]:
    """As deploy.stack.status; process ids are those that the engine names."""
    rows = {row["Service"]: row for row in _containers()}
    with ThreadPoolExecutor(max_workers=len(PROCESSES)) as pool:
        healthy = dict(zip([row.name for row in PROCESSES], pool.map(_answers, PROCESSES), strict=True))
    services = {}
    for service in SERVICES:
        own = [row for row in PROCESSES if row.service == service]
        services[service] = {
            "url": next(f"http://127.0.0.1:{row.http_port}" for row in own if row.has_api),
            "pids": [pid for row in own for pid in _pids(rows, row.name)],
            "healthy": all(healthy[row.name] for row in own),
        }
    servers = {}
    for name in (*sorted({*servers_for(broker)} - {broker}), "jaeger"):
        servers[name] = _server(rows, _SERVER_NAMES.get(name, name), _server_urls()[name])
    for name, url in _broker_urls(broker, rows).items():
        servers[name] = _server(rows, _SERVER_NAMES.get(name, name), url)
    return {
        "broker": broker,
        "runtime": "docker",
        "services": services,
        "servers": servers,
        "mails": f"/var/lib/tandem-mail/new of the container {_PROJECT}-mail-1",
    }


def cluster_status() -> dict[str, Any] | None:
    """As `status`, of the clusters that run by themselves; None when there are none."""
    running = clusters()
    if not running:
        return None
    servers: dict[str, Any] = {}
    for broker, containers in running.items():
        rows = {row["Service"]: row for row in containers}
        servers |= {name: _server(rows, name, url) for name, url in _broker_urls(broker, rows).items()}
    return {"broker": ", ".join(running), "runtime": "docker", "services": {}, "servers": servers}


def settings(broker: BrokerName) -> dict[str, str]:
    """The broker's address, of every node, as seen from the host, as settings."""
    rows = {row["Service"]: row for row in _containers()}
    urls = ",".join(url for url in _broker_urls(broker, rows).values() if url)
    return {"rabbit_url": urls} if broker == "rabbit" else {"kafka_bootstrap": urls}


def logs(names: list[str], *, follow: bool, lines: int) -> int:
    """Print the containers' logs, all or those of `names`; returns the exit code of Compose."""
    compose = _compose()
    if compose is None:
        raise DeployError("Docker Compose 2.20 or newer is not installed")
    # Every container has a profile: without one, Compose would print nothing.
    command = [*compose, "--profile", "*", "logs", "--tail", str(lines), *(["--follow"] if follow else [])]
    command += [_SERVER_NAMES.get(name, name) for name in names]
    return subprocess.run(command, env=_environment("rabbit"), check=False).returncode


def _answers(row: Any) -> bool:
    try:
        url = f"http://127.0.0.1:{row.http_port}/health/ready"
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _server_urls() -> dict[str, str]:
    ports = Ports.default()
    password = {
        name: os.environ.get(f"TANDEM_{name}_PASSWORD", "tandem") for name in ("POSTGRES", "REDIS", "RABBIT")
    }
    return {
        "postgres": f"postgresql://tandem:{password['POSTGRES']}@127.0.0.1:{ports.postgres}/postgres",
        "redis": f"redis://:{password['REDIS']}@127.0.0.1:{ports.redis}/0",
        "rabbit": f"amqp://tandem:{password['RABBIT']}@127.0.0.1:{ports.rabbit}/",
        "kafka": f"127.0.0.1:{ports.kafka}",
        "mail": f"smtp://127.0.0.1:{ports.mail}",
        "jaeger": JAEGER_URL,
    }


def _nodes(broker: BrokerName, names: Collection[str]) -> list[str]:
    """The containers of a broker: `kafka`, or `kafka-1` to `kafka-3`."""
    return sorted(name for name in names if re.fullmatch(_SERVER_NAMES.get(broker, broker) + r"(-\d+)?", name))


def _broker_urls(broker: BrokerName, rows: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Address for clients on the host, by name; empty for a node that has none just now."""
    url = _server_urls()[broker]
    nodes = [name for name in _nodes(broker, rows) if "-" in name]
    return {name: _node_url(broker, rows[name], url) for name in nodes} or {broker: url}


def _node_url(broker: BrokerName, container: Mapping[str, Any], like: str) -> str:
    for port in container.get("Publishers") or ():
        if port["TargetPort"] == _CLIENT_PORTS[broker]:
            return like.replace(f":{getattr(Ports.default(), broker)}", f":{port['PublishedPort']}")
    return ""


def _server(rows: Mapping[str, dict[str, Any]], name: str, url: str) -> dict[str, Any]:
    container = rows.get(name, {})
    healthy = container.get("State") == "running" and container.get("Health", "") in ("", "healthy")
    return {"url": url, "pids": _pids(rows, name), "healthy": healthy}


def _published_ports(broker: BrokerName) -> dict[str, int]:
    ports = Ports.default()
    own = {"RabbitMQ": ports.rabbit} if broker == "rabbit" else {"Kafka": ports.kafka}
    return {"PostgreSQL": ports.postgres, "Redis": ports.redis, "Jaeger": 16686, "SMTP": ports.mail, **own}


def _is_there() -> bool:
    """Whether containers of ours may run at all."""
    wanted = os.environ.get("RUNTIME") != "native" and shutil.which("docker") is not None
    return wanted and _compose() is not None and _engine_answers()


def _engine_answers() -> bool:
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=_QUICK_TIMEOUT_S)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _cluster(broker: BrokerName) -> dict[str, Any]:
    """The project that a cluster file is by itself."""
    return {"files": [CLUSTER_FILES[broker]], "project": f"{_PROJECT}-{CLUSTER_FILES[broker].stem}"}


def _compose(files: Sequence[Path] = (COMPOSE_FILE,), project: str = _PROJECT) -> list[str] | None:
    """The command of a Compose that is new enough for our files, or None."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            done = subprocess.run(
                [*command, "version", "--short"],
                capture_output=True,
                text=True,
                check=False,
                timeout=_QUICK_TIMEOUT_S,
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
        numbers = re.match(r"v?(\d+)\.(\d+)", done.stdout.strip())
        if done.returncode == 0 and numbers and (int(numbers[1]), int(numbers[2])) >= _COMPOSE_MIN:
            return [*command, *(word for file in files for word in ("-f", str(file))), "--project-name", project]
    return None


def _environment(broker: str) -> dict[str, str]:
    return {**os.environ, "TANDEM_BROKER": broker}


def _run(
    broker: str,
    *arguments: str,
    timeout_s: float,
    files: Sequence[Path] = (COMPOSE_FILE,),
    project: str = _PROJECT,
) -> str:
    compose = _compose(files, project)
    if compose is None:
        raise DeployError("Docker Compose 2.20 or newer is not installed")
    with subprocess.Popen(
        [*compose, *arguments],
        env=_environment(broker),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us: it must not end the command that cleans up after it
    ) as process:
        try:
            said, complaint = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise DeployError(
                f"docker compose {' '.join(arguments)} took longer than {timeout_s:.0f} s"
            ) from error
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        raise DeployError(f"docker compose {' '.join(arguments)} failed:\n{last_lines(complaint, 12)}")
    return said


def _end(process: subprocess.Popen[str]) -> None:
    """With the plugin that it runs: that one would go on by itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_TIMEOUT_S)


def _containers(**project: Any) -> list[dict[str, Any]]:
    return [row for row in _rows(**project) if row.get("State") in ("running", "restarting")]


def _rows(*options: str, **project: Any) -> list[dict[str, Any]]:
    command = ["--profile", "*", "ps", *options, "--format", "json"]
    text = _run("rabbit", *command, timeout_s=_QUICK_TIMEOUT_S, **project).strip()
    # Compose prints an array up to 2.20, a line per container since.
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def _last_words() -> str:
    """The last lines of the containers that failed: their logs go when they are taken down."""
    said = []
    for row in _rows("--all"):
        if row.get("ExitCode") or row.get("State") == "restarting" or row.get("Health") == "unhealthy":
            command = ["docker", "logs", "--tail", "4", row["ID"]]
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=_QUICK_TIMEOUT_S,
            )
            said.append(f"{row['Service']}: {done.stdout.strip()}")
    return "\n".join(said)


def _pids(rows: Mapping[str, dict[str, Any]], name: str) -> list[int]:
    if name not in rows:
        return []
    command = ["docker", "inspect", "--format", "{{.State.Pid}}", rows[name]["ID"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_QUICK_TIMEOUT_S)
    return [int(done.stdout)] if done.returncode == 0 and done.stdout.strip().isdigit() else []
