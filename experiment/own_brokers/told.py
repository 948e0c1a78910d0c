"""Which brokers are one's own: what the environment says of them, checked, and taken out of it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deploy.topology import BROKERS, BrokerName
from shared.errors import ConfigurationError
from shared.setting_names import require_known
from shared.setting_values import parts
from shared.settings import Settings

CONNECT_TIMEOUT_S = 10.0
"""Before anything starts a person waits for the answer."""
_PREFIX = "TANDEM_BROKER_PREFIX"
_USUAL_PREFIX = "tandem-compare-"
_ADDRESSES: Mapping[BrokerName, tuple[str, str]] = {
    "rabbit": ("TANDEM_RABBIT_URL", "TANDEM_RABBIT_URL"),
    "kafka": ("TANDEM_KAFKA_SERVERS", "TANDEM_KAFKA_BOOTSTRAP"),
}
"""By which variable a person says where each is, and by which the services are told."""
_ACCESS: Mapping[BrokerName, tuple[str, ...]] = {
    "rabbit": ("TANDEM_BROKER_CA_FILE",),
    "kafka": (
        "TANDEM_BROKER_CA_FILE",
        "TANDEM_KAFKA_TLS",
        "TANDEM_KAFKA_USER",
        "TANDEM_KAFKA_PASSWORD",
        "TANDEM_KAFKA_SASL_MECHANISM",
    ),
}
_OF_BOTH = ("TANDEM_KAFKA_REPLICATION_FACTOR", "TANDEM_KAFKA_MIN_INSYNC_REPLICAS")
"""What a cluster needs is said to both sets of services, which differ in their broker alone."""
ONLY_WHERE = frozenset(name.removeprefix("TANDEM_").lower() for name in {_PREFIX}.union(*_ACCESS.values()))
"""The settings that say no more than where a broker is and how it is reached."""
_NOT_SHOWN = {"TANDEM_KAFKA_USER": "USER", "TANDEM_KAFKA_PASSWORD": "PASSWORD"}
_PORTS = {"amqp": 5672, "amqps": 5671}


class OwnBrokerError(Exception):
    """A broker of one's own cannot be used; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class OwnBroker:
    """A broker of one's own.

    `where` is host and port without account or password, `again` how it is said in the environment, with
    placeholders for those. `environment` is what its services are told of it, and not to be shown.
    """

    broker: BrokerName
    where: str
    again: str
    prefix: str
    environment: Mapping[str, str] = field(repr=False)

    @property
    def settings(self) -> Settings:
        """Of a process that uses nothing but the broker. Raises `ConfigurationError`."""
        told = {name.removeprefix("TANDEM_").lower(): value for name, value in self.environment.items()}
        return Settings.from_environment(
            **told,
            broker=self.broker,
            http_port=1,
            postgres_dsn="postgresql://unused",
            redis_url="redis://unused",
            connect_timeout_s=CONNECT_TIMEOUT_S,
        )


@dataclass(frozen=True, slots=True)
class OwnBrokers:
    """All of them by name, none as a rule. `of_both` is what both sets of services are told because of them."""

    by_name: Mapping[BrokerName, OwnBroker] = field(default_factory=dict)
    of_both: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[OwnBroker]:
        return iter(self.by_name.values())

    @property
    def started(self) -> tuple[BrokerName, ...]:
        """The brokers that are not among them."""
        return tuple(broker for broker in BROKERS if broker not in self.by_name)

    @property
    def where(self) -> dict[BrokerName, str]:
        """Where each is, to be shown."""
        return {each.broker: each.where for each in self}

    def environment(self, broker: BrokerName) -> dict[str, str]:
        """What the services on a broker are told because of them."""
        own = self.by_name.get(broker)
        return {**self.of_both, **(own.environment if own else {})}


NONE_OWN = OwnBrokers()


def take_from(environment: MutableMapping[str, str]) -> OwnBrokers:
    """What the environment says of brokers of one's own, which is taken out of it: nobody who is started later
    shall find a password there. Raises `ConfigurationError` for what is wrong."""
    if not any(environment.get(address) for address, _ in _ADDRESSES.values()):
        return OwnBrokers()
    require_known(environment, Settings.model_fields)
    names = {*_OF_BOTH, _PREFIX, *(address for address, _ in _ADDRESSES.values())}.union(*_ACCESS.values())
    given = {name: value for name in sorted(names) if (value := environment.pop(name, ""))}
    prefix = f"{given.get(_PREFIX, _USUAL_PREFIX)}{secrets.token_hex(4)}-"
    of_both = {name: given[name] for name in _OF_BOTH if name in given}
    found = {broker: _own(broker, given, prefix, of_both) for broker in BROKERS if _ADDRESSES[broker][0] in given}
    return OwnBrokers(found, of_both)


def told_to_services(broker: BrokerName, environment: Mapping[str, str]) -> OwnBroker | None:
    """The broker of one's own that services were told of; None where they were told of none."""
    if _PREFIX not in environment:
        return None
    address, told_as = _ADDRESSES[broker]
    return _own(broker, {**environment, address: environment[told_as]}, environment[_PREFIX], {})


def _own(broker: BrokerName, given: Mapping[str, str], prefix: str, of_both: Mapping[str, str]) -> OwnBroker:
    address, told_as = _ADDRESSES[broker]
    access = {name: given[name] for name in _ACCESS[broker] if name in given}
    environment = {**access, **of_both, told_as: given[address], _PREFIX: prefix}
    nodes = parts(given[address])
    where = [_host_of(node) if broker == "rabbit" else node for node in nodes]
    first = urlsplit(nodes[0])
    shown = f"{first.scheme}://USER:PASSWORD@{where[0]}{first.path}" if broker == "rabbit" else ",".join(where)
    again = [f"{address}={shown}", *(f"{name}={_NOT_SHOWN.get(name, value)}" for name, value in access.items())]
    own = OwnBroker(broker, ",".join(where), " ".join(again), prefix, environment)
    _ = own.settings  # raises for what is wrong
    return own


def _host_of(url: str) -> str:
    """Host and port alone. Raises `ConfigurationError`, which must not show the URL."""
    try:
        parted = urlsplit(url)
        host, port = parted.hostname, parted.port or _PORTS[parted.scheme]
    except (ValueError, KeyError):
        host, port = None, 0
    if not host:
        raise ConfigurationError(
            "bad settings: TANDEM_RABBIT_URL must be amqp://user:password@host:port/ or amqps://…, with what is "
            "neither a letter nor a digit in user and password written as %XX"
        )
    return f"{host}:{port}"
