"""The servers by name, and by the names of their processes."""

from collections.abc import Mapping

from deploy.native.readiness import Probe, after_connect
from deploy.native.servers.kafka import Kafka
from deploy.native.servers.mail import MailServer
from deploy.native.servers.objects import ObjectStorage
from deploy.native.servers.postgres import PostgreSQL
from deploy.native.servers.rabbit import RabbitMQ
from deploy.native.servers.redis import Redis
from deploy.native.servers.server import BrokerServer, Server
from deploy.native.site import Site
from deploy.topology import BrokerName, ServerName

BROKERS_BY_NAME: Mapping[BrokerName, BrokerServer] = {"rabbit": RabbitMQ(), "kafka": Kafka()}
SERVERS_BY_NAME: Mapping[ServerName, Server] = {
    "postgres": PostgreSQL(),
    "redis": Redis(),
    "rabbit": BROKERS_BY_NAME["rabbit"],
    "kafka": BROKERS_BY_NAME["kafka"],
    "mail": MailServer(),
    "objects": ObjectStorage(),
}


def process_names(site: Site, name: ServerName) -> list[str]:
    """A process per node: `kafka`, `kafka-2`, `kafka-3`."""
    return [name if node == 1 else f"{name}-{node}" for node in range(1, SERVERS_BY_NAME[name].nodes(site) + 1)]


def find(process: str) -> tuple[Server, int] | None:
    """The server that a process belongs to and the number of its node; None for a process of a service."""
    name, _, node = process.partition("-")
    for server in SERVERS_BY_NAME.values():
        if process == server.name:
            return server, 1
        if name == server.name and node.isdecimal():
            return server, int(node)
    return None


def server_of(process: str) -> tuple[Server, int]:
    """As `find`. Raises KeyError when no server has such a process."""
    found = find(process)
    if found is None:
        raise KeyError(f"no server is called {process!r}")
    return found


def probe_of(site: Site, server: Server, node: int) -> Probe:
    """A probe of the node that first sees whether anything listens."""
    return after_connect(server.port(site, node), lambda: server.probe(site, node))


def ports_of(site: Site, name: ServerName) -> dict[str, int]:
    """Every port that the server listens on, with all its nodes, keyed by what it is for."""
    server = SERVERS_BY_NAME[name]
    return {
        purpose: port
        for node in range(1, server.nodes(site) + 1)
        for purpose, port in server.ports(site, node).items()
    }
