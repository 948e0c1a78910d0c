"""The four servers by name: how each is prepared, asked whether it is ready, and addressed."""

from typing import get_args

from deploy.errors import DeployError
from deploy.native import kafka, postgres, rabbit, redis
from deploy.native.install import Installed
from deploy.native.readiness import Probe, after_connect
from deploy.native.site import Site
from deploy.native.supervision import Program
from deploy.topology import ServerName

TITLES: dict[ServerName, str] = {
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "rabbit": "RabbitMQ",
    "kafka": "Kafka",
}
_PROBES = {"postgres": postgres.probe, "redis": redis.probe, "rabbit": rabbit.probe, "kafka": kafka.probe}


def is_server(name: str) -> bool:
    """Whether a process of that name is a server, not a service."""
    return name in get_args(ServerName)


def prepare(site: Site, name: ServerName, installed: Installed) -> list[Program]:
    """Make the server's data and settings and say how to run it.

    Raises StartError naming the server when its data cannot be made.
    """
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
    """Raises unless the server does real work: a query, a queue, a stored record."""
    return after_connect(getattr(site.ports, name), lambda: _PROBES[name](site))


def url(site: Site, name: ServerName) -> str:
    """Its address for clients, with the password."""
    if name == "postgres":
        return postgres.dsn(site, "postgres")
    if name == "redis":
        return redis.url(site)
    return rabbit.url(site) if name == "rabbit" else kafka.bootstrap(site)


def ports(site: Site, name: ServerName) -> dict[str, int]:
    """Every port that the server listens on, keyed by what it is for."""
    own = site.ports
    if name == "rabbit":
        return {
            "RabbitMQ": own.rabbit,
            "RabbitMQ's node": own.rabbit_dist,
            "RabbitMQ's port mapper": own.rabbit_epmd,
            "RabbitMQ's management": own.rabbit_management,
        }
    if name == "kafka":
        return {"Kafka": own.kafka, "Kafka's controller": own.kafka_controller}
    return {TITLES[name]: getattr(own, name)}
