"""The servers of a comparison in containers: the image that each runs, what it is told, and its limits.

Images, settings and limits are those of the Compose file. What differs: they listen on the ports of a native
instance, on the loopback of a network that they share and that nobody else can reach, and the brokers confirm when
the comparison says. Nothing of them is published, and their data goes with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import yaml

from deploy.native.ports import Ports
from deploy.native.site import Durability
from deploy.stack.compose import COMPOSE_FILE
from deploy.topology import ServerName

COMPARED: tuple[ServerName, ...] = ("postgres", "redis", "rabbit", "kafka")
BROKER_CPUS_MAX = 2.0
"""As many as either broker may use, and no more than the engine has."""
_RABBIT_CONF = COMPOSE_FILE.with_name("rabbitmq.conf")
_UNSYNCED = "[{ra, [{wal_sync_method, none}]}].\n"
_PLUGINS = "[rabbitmq_management,rabbitmq_consistent_hash_exchange].\n"
_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


@dataclass(frozen=True, slots=True)
class ServerContainer:
    """What a container of a server is made of.

    `files` are put into it by their paths; `data` is where a volume of its own lies. `settings` are all that it is
    told, by the server's own names, without addresses and passwords.
    """

    image: str
    settings: Mapping[str, str]
    memory_bytes: int
    cpus: float | None = None
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    tmpfs: Sequence[str] = ()

    @property
    def version(self) -> str:
        """By the image's tag, which is pinned to a release."""
        return re.split(r"[:-]", self.image.rpartition("/")[2])[1]

    def words(self) -> Iterator[str]:
        """For `docker create`, behind the options of all containers; it is to be told the `environment`, too."""
        yield from ("--memory", str(self.memory_bytes), "--memory-swap", str(self.memory_bytes))
        if self.cpus is not None:
            yield from ("--cpus", f"{self.cpus:g}")
        for name in self.environment:
            yield from ("--env", name)
        if self.data is not None:
            yield from ("--volume", self.data)
        for place in self.tmpfs:
            yield from ("--tmpfs", place)
        yield from (self.image, *self.command)


def server_containers(
    ports: Ports, durability: Durability, password: str, engine_cpus: int
) -> dict[ServerName, ServerContainer]:
    """The container of each server; both brokers have the same limits, and as much as they may use of memory."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    limits = _Limits(
        cpus=min(BROKER_CPUS_MAX, float(engine_cpus)),
        memory_bytes=min(_bytes(services[name]["mem_limit"]) for name in ("rabbitmq", "kafka")),
    )
    return {
        "postgres": _postgres(services["postgres"], ports, password),
        "redis": _redis(services["redis"], ports),
        "rabbit": _rabbit(services["rabbitmq"], ports, password, durability, limits),
        "kafka": _kafka(services["kafka"], ports, durability, limits),
    }


class _Limits(TypedDict):
    cpus: float
    memory_bytes: int


def _postgres(service: Mapping[str, Any], ports: Ports, password: str) -> ServerContainer:
    program, *options = service["command"]
    return ServerContainer(
        image=service["image"],
        settings=dict(option.removeprefix("-c").split("=", 1) for option in options),
        memory_bytes=_bytes(service["mem_limit"]),
        command=[program, *options, "-clisten_addresses=127.0.0.1", f"-cport={ports.postgres}"],
        environment={**service["environment"], "POSTGRES_PASSWORD": password},
        data=_data(service),
    )


def _redis(service: Mapping[str, Any], ports: Ports) -> ServerContainer:
    program, *words = service["command"]
    given = dict(zip(words[::2], words[1::2], strict=True))
    del given["--requirepass"]  # as natively: nobody but the services can reach it
    own = [word for pair in given.items() for word in pair]
    return ServerContainer(
        image=service["image"],
        settings={name.removeprefix("--"): value for name, value in given.items()},
        memory_bytes=_bytes(service["mem_limit"]),
        command=[program, *own, "--bind", "127.0.0.1", "--port", str(ports.redis)],
        tmpfs=service["tmpfs"],
    )


def _rabbit(
    service: Mapping[str, Any], ports: Ports, password: str, durability: Durability, limits: _Limits
) -> ServerContainer:
    text = _RABBIT_CONF.read_text()
    places = (
        f"listeners.tcp.1 = 127.0.0.1:{ports.rabbit}\n"
        "management.tcp.ip = 127.0.0.1\n"
        f"management.tcp.port = {ports.rabbit_management}\n"
    )
    files = {"/etc/rabbitmq/conf.d/90-tandem.conf": text + places, "/etc/rabbitmq/enabled_plugins": _PLUGINS}
    settings = _assignments(text)
    if durability == "pagecache":  # by itself the log of quorum queues is synced before a message is confirmed
        files["/etc/rabbitmq/advanced.config"] = settings["advanced.config"] = _UNSYNCED
    environment = {
        **service["environment"],
        "RABBITMQ_DEFAULT_PASS": password,
        "RABBITMQ_NODENAME": "tandem@localhost",  # the machine's own name leads nowhere in this network
    }
    return ServerContainer(
        service["image"], settings, environment=environment, files=files, data=_data(service), **limits
    )


def _kafka(service: Mapping[str, Any], ports: Ports, durability: Durability, limits: _Limits) -> ServerContainer:
    clients, quorum = f"127.0.0.1:{ports.kafka}", f"127.0.0.1:{ports.kafka_controller}"
    told: dict[str, str] = {name: str(value) for name, value in service["environment"].items()}
    if durability == "fsync":  # a record is confirmed when it is on the disk, and so is a consumer's position
        told["KAFKA_LOG_FLUSH_INTERVAL_MESSAGES"] = "1"
    places = {
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"{told['KAFKA_NODE_ID']}@{quorum}",
        "KAFKA_LISTENERS": f"CONTROLLER://{quorum},INTERNAL://{clients}",
        "KAFKA_ADVERTISED_LISTENERS": f"INTERNAL://{clients}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT",
    }
    left_out = {"CLUSTER_ID", "KAFKA_LOG_DIRS", *places}
    settings = {_property(name): value for name, value in told.items() if name not in left_out}
    return ServerContainer(
        service["image"], settings, environment={**told, **places}, data=_data(service), **limits
    )


def _property(name: str) -> str:
    """As the image makes it: KAFKA_NODE_ID is node.id; but the heap is Java's."""
    return "java.heap" if name == "KAFKA_HEAP_OPTS" else name.removeprefix("KAFKA_").lower().replace("_", ".")


def _assignments(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def _data(service: Mapping[str, Any]) -> str:
    """Where the image keeps its data, which the Compose file gives a name to."""
    [place] = [str(volume).split(":")[1] for volume in service["volumes"] if not volume.startswith(".")]
    return place


def _bytes(limit: str) -> int:
    return int(limit[:-1]) * _UNITS[limit[-1]]
