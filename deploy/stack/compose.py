"""The stack in containers, and the clusters that may run beside it or as a part of it."""

import os
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from deploy.errors import DeployError
from deploy.native.ports import Ports, require_free
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.show.traces import Found, find_in_jaeger
from deploy.stack.docker import Project, pids_of
from deploy.stack.settings import require_good_passwords
from deploy.stack.stack import Stack, Status
from deploy.topology import BROKERS, PROCESSES, SERVICES, BrokerName, ServiceProcess, process_of, servers_for
from shared.settings import BROKER_ADDRESSES

JAEGER_URL = "http://127.0.0.1:16686"
COMPOSE_FILE = REPOSITORY / "deploy" / "compose" / "compose.yml"
CLUSTER_FILES: dict[BrokerName, Path] = {
    "rabbit": REPOSITORY / "deploy" / "rabbitmq-cluster.yml",
    "kafka": REPOSITORY / "deploy" / "kafka-cluster.yml",
}
_STACK = Project("tandem", (COMPOSE_FILE,))
_WITH_KAFKA_CLUSTER = Project(_STACK.name, (COMPOSE_FILE, CLUSTER_FILES["kafka"]))
_CLUSTERS: dict[BrokerName, Project] = {
    broker: Project(f"{_STACK.name}-{file.stem}", (file,)) for broker, file in CLUSTER_FILES.items()
}
_UP_TIMEOUT_S = 1200
_DOWN_TIMEOUT_S = 300  # the longest TANDEM_SHUTDOWN_GRACE_S of the services, then the servers, and some
_READY_TIMEOUT_S = 5
_CONTAINER_NAMES = {"rabbit": "rabbitmq"}  # where the Compose file's name differs from ours
_CLIENT_PORTS = {"rabbit": 5672, "kafka": 9092}  # within the containers


class ComposeStack(Stack):
    """The project of compose.yml; where it is down, `status` and `down` look after the clusters alone."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def broker(self) -> BrokerName | None:
        """By its containers, one node or more; None when there are none."""
        return broker_of({row["Service"] for row in _STACK.containers()})

    def nodes(self) -> int | None:
        """The files decide: whoever added one by hand may have any number."""
        return None

    def up(self, broker: BrokerName, nodes: int) -> None:
        """Build and start everything and wait for the health checks."""
        if nodes > 1:
            file = CLUSTER_FILES[broker].relative_to(REPOSITORY)
            raise DeployError(f"in containers, the cluster has a file of its own: {file}")
        require_good_passwords()
        require_free({f"HTTP of {row.name}": row.http_port for row in PROCESSES} | _published_ports(broker))
        try:
            with self._steps.step(f"building and starting the containers on {broker}"):
                command = ("--profile", broker, "up", "-d", "--build", "--wait")
                _STACK.run(*command, broker=broker, timeout_s=_UP_TIMEOUT_S)
        except DeployError as error:
            try:
                said = _STACK.last_words()
            finally:
                self._remove_containers(volumes=False)
            raise DeployError(f"{error}\n{said}".rstrip()) from error
        except BaseException:
            self._remove_containers(volumes=False)
            raise

    def down(self, *, volumes: bool) -> bool:
        """Also the clusters; the volumes stay unless told otherwise."""
        up = self.broker() is not None
        if up or volumes:
            self._remove_containers(volumes=volumes)
        clusters = _clusters()
        for broker in BROKERS if volumes else clusters:
            with self._steps.step(f"stopping the cluster of {CLUSTER_FILES[broker].name}"):
                also = ["--volumes"] if volumes else []
                _CLUSTERS[broker].run("down", *also, broker=broker, timeout_s=_DOWN_TIMEOUT_S)
        return up or bool(clusters)

    def status(self) -> Status | None:
        """Process ids are those that the engine names. Without services: the clusters that run by themselves."""
        broker = self.broker()
        return _status(broker) if broker else _cluster_status()

    def print_logs(self, name: str | None, *, follow: bool, lines: int) -> int:
        """Of the containers of a service, or the one called `name`."""
        own = [row.name for row in PROCESSES if name in (row.service, row.name)]
        names = own or ([_CONTAINER_NAMES.get(name, name)] if name else [])
        # Every container has a profile: without one, Compose would print nothing.
        options = ["--tail", str(lines), *(["--follow"] if follow else [])]
        return _STACK.print("--profile", "*", "logs", *options, *names)

    def traces(self, wanted: str) -> Found:
        """From Jaeger."""
        return find_in_jaeger(JAEGER_URL, wanted)

    def service_url(self, service: str) -> str:
        """On the port that its container publishes."""
        return _url(process_of(service))

    def run_module(self, service: str, *words: str) -> int:
        """In the container of the service's first process."""
        return _STACK.print("--profile", "*", "exec", "-T", process_of(service).name, "python", "-m", *words)

    def broker_settings(self) -> dict[str, str]:
        """As seen from the host."""
        rows = {row["Service"]: row for row in _STACK.containers()}
        broker = broker_of(rows)
        if broker is None:
            raise DeployError("no broker runs in the containers")
        urls = ",".join(url for url in _broker_urls(broker, rows).values() if url)
        return {"broker": broker, BROKER_ADDRESSES[broker]: urls}

    def _remove_containers(self, *, volumes: bool) -> None:
        with self._steps.step("stopping the containers"):
            _STACK.run("--profile", "*", "down", "--remove-orphans", timeout_s=_DOWN_TIMEOUT_S)
            if volumes:  # also those of kafka-cluster.yml, which may have been part of the project
                _WITH_KAFKA_CLUSTER.run("--profile", "*", "down", "--volumes", timeout_s=_DOWN_TIMEOUT_S)


def broker_of(names: Collection[str]) -> BrokerName | None:
    """The broker among containers that are called so."""
    for broker in BROKERS:
        if _nodes(broker, names):
            return broker
    return None


def _clusters() -> dict[BrokerName, list[dict[str, Any]]]:
    """The containers of the cluster files that run as projects of their own, without services."""
    found = {broker: _CLUSTERS[broker].containers() for broker in BROKERS}
    return {broker: rows for broker, rows in found.items() if rows}


def _status(broker: BrokerName) -> Status:
    rows = {row["Service"]: row for row in _STACK.containers()}
    with ThreadPoolExecutor(max_workers=len(PROCESSES)) as pool:
        healthy = dict(zip([row.name for row in PROCESSES], pool.map(_answers, PROCESSES), strict=True))
    services = {}
    for service in SERVICES:
        own = [row for row in PROCESSES if row.service == service]
        services[service] = {
            "url": _url(own[0]),
            "pids": [pid for row in own if row.name in rows for pid in pids_of(rows[row.name])],
            "healthy": all(healthy[row.name] for row in own),
        }
    servers = {}
    for name in (*sorted({*servers_for(broker)} - {broker}), "jaeger"):
        servers[name] = _server(rows, name, _server_urls()[name])
    for name, url in _broker_urls(broker, rows).items():
        servers[name] = _server(rows, name, url)
    return {
        "broker": broker,
        "runtime": "docker",
        "services": services,
        "servers": servers,
        "mails": f"/var/lib/tandem-mail/new of the container {_STACK.name}-mail-1",
    }


def _cluster_status() -> Status | None:
    running = _clusters()
    if not running:
        return None
    servers: dict[str, Any] = {}
    for broker, containers in running.items():
        rows = {row["Service"]: row for row in containers}
        servers |= {name: _server(rows, name, url) for name, url in _broker_urls(broker, rows).items()}
    return {"broker": ", ".join(running), "runtime": "docker", "services": {}, "servers": servers}


def _url(row: ServiceProcess) -> str:
    return f"http://127.0.0.1:{row.http_port}"


def _answers(row: ServiceProcess) -> bool:
    try:
        answer = httpx.get(f"{_url(row)}/health/ready", timeout=_READY_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def _server_urls() -> dict[str, str]:
    ports = Ports.default()
    password = {
        name: (os.environ.get(f"TANDEM_{name}_PASSWORD") or "tandem") for name in ("POSTGRES", "REDIS", "RABBIT")
    }
    return {
        "postgres": f"postgresql://tandem:{password['POSTGRES']}@127.0.0.1:{ports.postgres}/postgres",
        "redis": f"redis://:{password['REDIS']}@127.0.0.1:{ports.redis}/0",
        "rabbit": f"amqp://tandem:{password['RABBIT']}@127.0.0.1:{ports.rabbit}/",
        "kafka": f"127.0.0.1:{ports.kafka}",
        "mail": f"smtp://127.0.0.1:{ports.mail}",
        "objects": f"http://127.0.0.1:{ports.objects}",
        "jaeger": JAEGER_URL,
    }


def _nodes(broker: BrokerName, names: Collection[str]) -> list[str]:
    """The containers of a broker: `kafka`, or `kafka-1` to `kafka-3`."""
    container = _CONTAINER_NAMES.get(broker, broker)
    return sorted(name for name in names if re.fullmatch(container + r"(-\d+)?", name))


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
    container = rows.get(_CONTAINER_NAMES.get(name, name))
    if container is None:
        return {"url": url, "pids": [], "healthy": False}
    healthy = container.get("State") == "running" and container.get("Health", "") in ("", "healthy")
    return {"url": url, "pids": pids_of(container), "healthy": healthy}


def _published_ports(broker: BrokerName) -> dict[str, int]:
    ports = Ports.default()
    own = {"RabbitMQ": ports.rabbit} if broker == "rabbit" else {"Kafka": ports.kafka}
    return {
        "PostgreSQL": ports.postgres,
        "Redis": ports.redis,
        "Jaeger": 16686,
        "SMTP": ports.mail,
        "Objects": ports.objects,
        **own,
    }
