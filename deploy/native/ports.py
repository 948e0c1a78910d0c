"""Which ports an instance uses: fixed ones for `make up-*`, a free block of 200 for everything else."""

import errno
import fcntl
import os
import random
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy.errors import DeployError, PortTakenError
from deploy.topology import PROCESSES

DEFAULT_SERVER_BLOCK = 24000
BLOCK_SIZE = 200
LOCKED_SIZE = 100  # what one lock is for: whole blocks once, and other checkouts may still run with those
# Below the kernel's ephemeral range (32768 on), so that no outgoing connection sits on one of ours.
FREE_BLOCKS = range(25000, 31800, BLOCK_SIZE)
SET_SIZE = 80  # ports of one set of services within a block
FIRST_PROXY_OFFSET = 20
FIRST_NODE_OFFSET = 25  # of the second and third nodes of a cluster
NODES = (1, 3)
FIRST_HTTP_OFFSET = 40

# A block stays ours until this process ends: the descriptors are kept open on purpose.
_held_locks: list[int] = []


@dataclass(frozen=True)
class Ports:
    """The ports of one instance, all on 127.0.0.1.

    `block` is the first of 200 ports. With `fixed_http` the services use the ports of the process
    table (8001 and so on), else they lie in the block. With `proxied` the services reach PostgreSQL and the
    brokers on other ports, where somebody must listen and pass on what comes: `proxies`. `nodes`: of
    how many each broker consists, 1 or 3.
    """

    block: int
    fixed_http: bool = False
    proxied: bool = False
    nodes: int = 1

    @property
    def postgres(self) -> int:
        """PostgreSQL."""
        return self.block

    @property
    def redis(self) -> int:
        """Redis."""
        return self.block + 1

    @property
    def rabbit(self) -> int:
        """AMQP."""
        return self.block + 2

    @property
    def rabbit_dist(self) -> int:
        """Erlang distribution of the RabbitMQ node."""
        return self.block + 3

    @property
    def rabbit_epmd(self) -> int:
        """Erlang's port mapper."""
        return self.block + 4

    @property
    def rabbit_management(self) -> int:
        """RabbitMQ's management HTTP API."""
        return self.block + 5

    @property
    def kafka(self) -> int:
        """Kafka clients."""
        return self.block + 6

    @property
    def kafka_controller(self) -> int:
        """Kafka's controller quorum."""
        return self.block + 7

    def rabbit_node(self, node: int) -> tuple[int, int, int]:
        """AMQP, Erlang distribution and management of a node, counted from 1."""
        if node == 1:
            return self.rabbit, self.rabbit_dist, self.rabbit_management
        first = self.block + FIRST_NODE_OFFSET + 3 * (node - 2)
        return first, first + 1, first + 2

    def kafka_node(self, node: int) -> tuple[int, int]:
        """Clients and controller of a node, counted from 1."""
        if node == 1:
            return self.kafka, self.kafka_controller
        first = self.block + FIRST_NODE_OFFSET + 6 + 2 * (node - 2)
        return first, first + 1

    @property
    def kafka_behind_proxy(self) -> int:
        """Where Kafka listens for clients that come through the proxy, and are told to come back through it."""
        return self.block + FIRST_PROXY_OFFSET

    @property
    def proxies(self) -> dict[str, tuple[int, int]]:
        """By server: the port of its proxy, and the port that the proxy connects to."""
        first = self.block + FIRST_PROXY_OFFSET
        return {
            "postgres": (first + 1, self.postgres),
            "rabbit": (first + 2, self.rabbit),
            "kafka": (first + 3, self.kafka_behind_proxy),
        }

    @property
    def objects(self) -> int:
        """The S3 of the object storage."""
        return self.block + 18

    @property
    def mail(self) -> int:
        """SMTP of the development mail server."""
        return self.block + 19

    def http(self, process: str, replica: int = 1, service_set: int = 0) -> int:
        """The HTTP port of a service process.

        `replica` counts from 1, `service_set` from 0 (two sets of services may run in one instance).
        Raises DeployError when the block has no room for it.
        """
        index = next(i for i, row in enumerate(PROCESSES) if row.name == process)
        if self.fixed_http and service_set == 0:
            return PROCESSES[index].http_port + 10 * (replica - 1)
        offset = index + len(PROCESSES) * (replica - 1)
        if offset >= SET_SIZE or service_set not in (0, 1):
            raise DeployError(f"no port is left for replica {replica} of {process} in set {service_set}")
        return self.block + FIRST_HTTP_OFFSET + SET_SIZE * service_set + offset

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Ports":
        """Read what `as_dict` wrote."""
        return cls(**values)

    @classmethod
    def default(cls, *, nodes: int = 1) -> "Ports":
        """The ports of `make up-*`: servers from 24000, services on the ports of the process table."""
        return cls(DEFAULT_SERVER_BLOCK, fixed_http=True, nodes=nodes)

    @classmethod
    def free_block(cls, *, proxied: bool = False, nodes: int = 1) -> "Ports":
        """Reserve 200 free consecutive ports for as long as this process lives.

        Raises DeployError when every block is in use.
        """
        candidates = list(FREE_BLOCKS)
        random.shuffle(candidates)
        for block in candidates:
            locks = _lock_block(block)
            if locks is None:
                continue
            if all(is_free(port) for port in range(block, block + BLOCK_SIZE)):
                _held_locks.extend(locks)
                return cls(block, proxied=proxied, nodes=nodes)
            _let_go(locks)
        raise DeployError(f"no block of {BLOCK_SIZE} free ports between 25000 and 31999 was found")


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do; without it a connection in TIME_WAIT would make the port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def require_free(ports: dict[str, int]) -> None:
    """Check that every port (keyed by what it is for) is free.

    Raises PortTakenError naming the first one that is not and, when it can be found, who has it.
    """
    for purpose, port in ports.items():
        if not is_free(port):
            raise PortTakenError(f"port {port} ({purpose}) is already taken{_holder(port)}")


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            local = connection.laddr
            if local and local.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return ""
    return ""


def _lock_block(block: int) -> list[int] | None:
    locks: list[int] = []
    for first in range(block, block + BLOCK_SIZE, LOCKED_SIZE):
        lock = _lock(Path(tempfile.gettempdir()) / f"tandem-ports-{first}.lock")
        if lock is None:
            _let_go(locks)
            return None
        locks.append(lock)
    return locks


def _let_go(locks: list[int]) -> None:
    for lock in locks:
        os.close(lock)


def _lock(path: Path) -> int | None:
    try:
        descriptor = _open_lock(path)
    except OSError:  # nobody's file to lock: another user's that is closed, a link, a directory
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open_lock(path: Path) -> int:
    """To lock a file it need only be read: one that another user left is as good as one of ours."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        os.fchmod(descriptor, 0o644)  # whatever the umask is
        return descriptor
