"""The servers by name: how each is prepared, asked whether it is ready, and addressed."""

from typing import get_args

from deploy.errors import DeployError
from deploy.native.install.install import Installed
from deploy.native.readiness import Probe, after_connect
from deploy.native.servers import kafka, mail, postgres, rabbit, redis
from deploy.native.site import Site
from deploy.native.supervision import Program
from deploy.topology import BROKERS, ServerName

TITLES: dict[ServerName, str] = {
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "rabbit": "RabbitMQ",
    "kafka": "Kafka",
    "mail": "the mail server",
}


def process_names(site: Site, name: ServerName) -> list[str]:
    """A process per node: `kafka`, `kafka-2`, `kafka-3`."""
    nodes = site.ports.nodes if name in BROKERS else 1
    return [name, *(f"{name}-{node}" for node in range(2, nodes + 1))]


def _split(name: str) -> tuple[str, int]:
    """Server and number of the node."""
    server, _, node = name.partition("-")
    return (server, int(node)) if node.isdecimal() else (name, 1)


def is_server(name: str) -> bool:
    """Whether a process of that name is a server, not a service."""
    return _split(name)[0] in get_args(ServerName)


def prepare(site: Site, name: ServerName, installed: Installed) -> list[Program]:
    """Make the server's data and settings and say how to run it.

    Raises StartError naming the server when its data cannot be made.
    """
    if name == "mail":
        return mail.prepare(site)
    if name == "postgres" and installed.postgres_bin:
        return postgres.prepare(site, installed.postgres_bin)
    if name == "redis" and installed.redis_server:
        return redis.prepare(site, installed.redis_server)
    if name == "rabbit" and installed.rabbit:
        return rabbit.prepare(site, installed.rabbit)
    if name == "kafka" and installed.kafka_lib and installed.java:
        return kafka.prepare(site, installed.kafka_lib, installed.java)
    raise DeployError(f"{TITLES[name]} is not installed")


def probe(site: Site, name: str) -> Probe:
    """Raises unless the server, or this node of it, does real work: a query, a queue, a stored record."""
    server, node = _split(name)
    if server == "rabbit":
        return after_connect(site.ports.rabbit_node(node)[0], lambda: rabbit.probe(site, node))
    if server == "kafka":
        return after_connect(site.ports.kafka_node(node)[0], lambda: kafka.probe(site, node))
    if server == "postgres":
        return after_connect(site.ports.postgres, lambda: postgres.probe(site))
    if server == "mail":
        return after_connect(site.ports.mail, lambda: mail.probe(site))
    return after_connect(site.ports.redis, lambda: redis.probe(site))


def url(site: Site, name: str) -> str:
    """Its address for clients, with the password; of a broker, that of one node."""
    server, node = _split(name)
    if server == "postgres":
        return postgres.dsn(site, "postgres")
    if server == "redis":
        return redis.url(site)
    if server == "mail":
        return mail.url(site)
    return rabbit.url(site, node) if server == "rabbit" else kafka.address(site, node)


def ports(site: Site, name: ServerName) -> dict[str, int]:
    """Every port that the server listens on, keyed by what it is for."""
    own = site.ports
    found: dict[str, int] = {}
    for process in process_names(site, name) if name in BROKERS else ():
        _, node = _split(process)
        which = f" {node}" if node > 1 else ""
        if name == "rabbit":
            amqp, distribution, management = own.rabbit_node(node)
            found |= {
                f"RabbitMQ{which}": amqp,
                f"RabbitMQ's node{which}": distribution,
                f"RabbitMQ's management{which}": management,
            }
        else:
            clients, controller = own.kafka_node(node)
            found |= {f"Kafka{which}": clients, f"Kafka's controller{which}": controller}
    if name in BROKERS:
        return {**found, **({"RabbitMQ's port mapper": own.rabbit_epmd} if name == "rabbit" else {})}
    return {TITLES[name]: getattr(own, name)}
