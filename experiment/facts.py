"""Collects what a figure depends on: versions, hardware, and every setting that is not the default."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile
from typing import Any

import psutil

from deploy.native import Runtime
from deploy.native.servers.redis import SETTINGS as REDIS_SETTINGS
from deploy.paths import REPOSITORY
from deploy.topology import BROKERS, PROCESSES, BrokerName
from experiment.backlog import settings_from
from experiment.containers import ContainerRuntime
from experiment.disk import FLUSHES, flushes
from experiment.effects import CONSUMER
from experiment.own_brokers import NONE_OWN, ONLY_WHERE, OwnBrokers, versions_of
from experiment.profiles import Profile
from experiment.runtimes import data_directories, mounts, runtimes
from shared.broker.kafka import AHEAD_BYTES_MAX, AHEAD_BYTES_MIN, consumer_options, producer_options
from shared.broker.rabbit import client_options
from shared.consuming import taken_up_max
from shared.settings import Settings

TITLES: dict[str, str] = {"rabbit": "RabbitMQ", "kafka": "Kafka"}
"""The brokers' names as a person writes them."""
TRACE_RATIO = 0.01
_BESIDE = frozenset({"fraud", "jobs", "report", "wallet"})
MEASURED = tuple(row for row in PROCESSES if row.service not in {"dead_letter", *_BESIDE})
"""The processes that take part. Without the dead-letter service: it would take the dead letters, which the check
counts, out of their places, and has nothing to do when all goes well. Without the jobs service and the wallet,
which no event of an order reaches, and the report and fraud services, whose rows the check does not look at."""
PLAYED = frozenset(row.name for row in PROCESSES if row.service not in _BESIDE)
"""The processes that run while faults are played, besides those of what runs beside the orders (`faults.kinds`).
Reports do not, since nothing of them is checked there."""
_PACKAGES = (
    "faststream",
    "aio-pika",
    "aiokafka",
    "asyncpg",
    "sqlalchemy",
    "redis",
    "fastapi",
    "uvicorn",
    "pydantic",
)
_CALLED = {"redis": "redis-py"}
"""Of packages that are called as a server is."""
_SECRET = "***"  # noqa: S105 - what is shown instead of one
# Where something lives and what it is called; different in every run and without influence.
_NOT_SHARED = {"broker", "roles", "process", *ONLY_WHERE}
_IN_CONTAINERS = "not measured: the brokers run in containers"
_PLACES = ("url", "dsn", "bootstrap", "port", "dir", "host")


def services_environment(profile: Profile) -> dict[str, str]:
    """What the comparison sets for both sets of services, besides which broker they use."""
    return {"TANDEM_TRACE_RATIO": str(TRACE_RATIO), **profile.services}


def versions(runtime: Runtime, own: OwnBrokers = NONE_OWN) -> dict[str, str]:
    """Of the servers, those of one's own as they tell it, and of what is in the processes."""
    packages = {_CALLED.get(name, name): version(name) for name in _PACKAGES}
    return {
        **runtime.versions(),
        **versions_of(own),
        "python": platform.python_version(),
        "tandem": revision(),
        **packages,
    }


def hardware(busy_percent: float | None) -> dict[str, Any]:
    """What the machine is. `busy_percent` is what other programs used of its CPUs just before, if known."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "disk": _disk(),
        "busy_before_percent": "not measured" if busy_percent is None else round(busy_percent, 1),
    }


def fsync_ms(directory: Path, writes: int = 50) -> dict[str, float]:
    """How long writing 8 KiB and syncing them takes in a directory: median and highest, in ms. Blocks."""
    took_ms: list[float] = []
    with NamedTemporaryFile(dir=directory) as file:
        for _ in range(writes):
            began_s = time.perf_counter()
            file.write(bytes(8_192))
            file.flush()
            os.fsync(file.fileno())
            took_ms.append((time.perf_counter() - began_s) * 1_000)
    return {"median": round(median(took_ms), 3), "highest": round(max(took_ms), 3)}


def busy_percent(seconds: float = 1.0) -> float:
    """How busy all CPUs are during the next `seconds`. Blocks."""
    psutil.cpu_percent()
    time.sleep(seconds)
    return float(psutil.cpu_percent())


def settings(runtime: Runtime, profile: Profile, own: OwnBrokers = NONE_OWN) -> dict[str, Any]:
    """Every setting that the run made of its own: the servers' configuration files and the services' settings; in
    what the two sides are unequal; what the brokers run on, and how their data's file systems are mounted.

    What a server's file does not name has that server's default. Passwords and addresses are left out, but for
    where brokers of one's `own` are.
    """
    contained = runtime if isinstance(runtime, ContainerRuntime) else None
    servers = contained.server_settings() if contained else _server_settings(runtime, own)
    shared = settings_from(runtime.service_env(CONSUMER, "kafka", "kafka"))
    return {
        "profile": "; not checked on ".join([str(profile), *(TITLES[each] for each in not_checked(own, profile))]),
        "unequal": [*unequal_places(own), *unequal(shared, profile)],
        "own_brokers": dict(own.where),
        "not_checked": not_checked(own, profile),
        "processes": {row.name: row.roles for row in MEASURED},
        "services": _service_settings(runtime),
        "services_environment": services_environment(profile),
        "clients": {
            "rabbit": client_options(shared),
            "kafka_producer": producer_options(shared.kafka_compression),
            "kafka_consumer": consumer_options(shared),
        },
        "servers": servers | dict.fromkeys(own.where, "not read: it is one's own"),
        "runtimes": _IN_CONTAINERS if contained else runtimes(runtime),
        "data_directories": mounts(
            {"harness": runtime.root} if contained else data_directories(runtime, own.where)
        ),
        **(contained.facts() if contained else {"not_measured": FLUSHES if flushes(runtime.root) is None else ()}),
    }


def _server_settings(runtime: Runtime, own: OwnBrokers) -> dict[str, Any]:
    """As the servers' files have them that were started here."""
    data = runtime.root / "data"
    files = {
        "rabbit": data / "rabbit" / "rabbitmq.conf",
        "kafka": data / "kafka" / "server.properties",
        "postgres": (data / "postgres").resolve() / "cluster" / "postgresql.conf",
    }
    made = {name: path.read_text() for name, path in files.items() if name not in own.where}
    made["redis"] = REDIS_SETTINGS
    if "rabbit" in made:
        made["rabbit"] += f"advanced.config = {files['rabbit'].with_name('advanced.config').read_text()}"
    return {name: _read_settings(text, runtime) for name, text in made.items()}


def not_checked(own: OwnBrokers, profile: Profile) -> list[BrokerName]:
    """The brokers of which it is not known whether they keep the profile's promise: those of one's own, but for a
    Kafka that is told with each topic to sync it."""
    told = {"kafka"} if profile.durability == "fsync" else set()
    return [each.broker for each in own if each.broker not in told]


def unequal_places(own: OwnBrokers) -> list[str]:
    """In what the two sides differ where not both brokers are started by the run."""
    return [f"{TITLES[each.broker]} is one's own, at {each.where}" for each in own] + [
        f"{TITLES[broker]} is started on this machine" for broker in own.started if own.where
    ]


def unequal(shared: Settings, profile: Profile) -> list[str]:
    """Everything in which the two sides differ besides their broker, from the options that are in use; `shared`
    are settings of the services."""
    rabbit, consumer = client_options(shared), consumer_options(shared)
    producer = producer_options(shared.kafka_compression)
    batch_kib = producer["max_batch_size"] // 2**10
    ahead = f"{AHEAD_BYTES_MIN // 2**20} to {AHEAD_BYTES_MAX // 2**20} MiB"
    session_s = consumer["session_timeout_ms"] / 1_000
    sent = f"RabbitMQ's producer sends each event by itself, {rabbit['publishes_in_flight_max']} under way"
    noticed = f"RabbitMQ notices a consumer's end by a heartbeat of {rabbit['heartbeat_s']} s"
    in_order = "RabbitMQ's producer sends an event once the one before it of its key is confirmed"
    packed = producer["compression_type"]
    found = [profile.unequal, f"Kafka's producer compresses ({packed}), RabbitMQ's does not" if packed else None]
    return [difference for difference in found if difference] + [
        f"Kafka's producer sends what has come since the last answer in batches of up to {batch_kib} KiB, {sent}",
        f"{in_order}, Kafka's idempotent producer keeps the order by itself",
        f"a channel is one queue on RabbitMQ, a topic of {shared.kafka_partitions} partitions on Kafka",
        f"RabbitMQ delivers {2 * taken_up_max(shared):,} messages ahead, Kafka's consumer fetches {ahead}",
        "RabbitMQ's acknowledgement is sent and not answered, Kafka's commit is awaited",
        "RabbitMQ's queues have a time to live and dead-letter by themselves, Kafka's topics have a retention",
        f"{noticed}, Kafka by a session of {session_s:g} s",
        "Kafka's JVM is given its heap when it starts, Erlang's memory grows with what is in it",
    ]


def _service_settings(runtime: Runtime) -> dict[str, Any]:
    """The settings of the services that both sets share; the broker is the only difference."""
    shown: list[dict[str, Any]] = []
    for broker in BROKERS:
        made = settings_from(runtime.service_env(CONSUMER, broker, broker)).model_dump(mode="json")
        shown.append(
            {name: value for name, value in made.items() if name not in _NOT_SHARED and not name.endswith(_PLACES)}
        )
    assert shown[0] == shown[1], "the two sets of services must differ in nothing but their broker"
    return {name: value for name, value in shown[0].items() if name != "postgres_timeout_s"}


def _read_settings(text: str, runtime: Runtime) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        separator = "=" if "=" in line else " "
        name, _, value = (part.strip() for part in line.partition(separator))
        if not name or name.startswith("#"):
            continue
        if name.rsplit(".", 1)[-1] in {"port", "listeners", "dir", "dirs"} or "127.0.0.1" in value:
            continue
        found[name] = _SECRET if runtime.site.password in value else value.strip("'\"")
    return found


def revision() -> str:
    """Of this code, as git describes it."""
    if shutil.which("git") is None:
        return "unknown"
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--tags"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def _disk() -> str:
    """The file system that holds the data: what a durable commit costs depends on it."""
    here = str(REPOSITORY / ".run")
    mounts = [part for part in psutil.disk_partitions(all=True) if here.startswith(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"
