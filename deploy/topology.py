"""The processes of the system, in one place: what runs, as which service, in which roles, on which port.

Add a service here and it is started, watched, shown by `make status` and followed by `make logs`.
"""

from dataclasses import dataclass
from typing import Literal

BrokerName = Literal["rabbit", "kafka"]
ServerName = Literal["postgres", "redis", "rabbit", "kafka", "mail"]

BROKERS: tuple[BrokerName, ...] = ("rabbit", "kafka")
SERVERS: tuple[ServerName, ...] = ("postgres", "redis", "rabbit", "kafka", "mail")


@dataclass(frozen=True)
class ServiceProcess:
    """One process of a service.

    `roles` is what TANDEM_ROLES says, comma-separated. Every process answers /health/live,
    /health/ready and /metrics on `http_port`; the process with the role `api` is the service's URL.
    """

    name: str
    service: str
    roles: str
    http_port: int

    @property
    def has_api(self) -> bool:
        """Whether this process serves the service's own HTTP interface."""
        return "api" in self.roles.split(",")


PROCESSES: tuple[ServiceProcess, ...] = (
    ServiceProcess("user", "user", "api,relay", 8002),
    ServiceProcess("order", "order", "api,relay", 8001),
    ServiceProcess("order-consumer", "order", "consumer", 8101),
    ServiceProcess("notification", "notification", "api", 8003),
    ServiceProcess("notification-consumer", "notification", "consumer", 8103),
    ServiceProcess("dead-letter", "dead_letter", "api,consumer", 8004),
)

# (subscriber, channel): each pair has a queue, or a consumer group, and a place for its dead letters.
SUBSCRIPTIONS: tuple[tuple[str, str], ...] = (
    ("order", "user"),
    ("notification", "user"),
    ("notification", "order"),
)
# Those that are there only where TANDEM_SMTP_URL is set.
MAIL_SUBSCRIPTIONS: tuple[tuple[str, str], ...] = (("mail", "user"), ("mail", "order"))

# As the setting TANDEM_DEAD_LETTER_SUBSCRIPTIONS: whose dead letters the dead-letter service keeps.
DEAD_LETTER_SUBSCRIPTIONS = ",".join(
    f"{subscriber}.{channel}" for subscriber, channel in (*SUBSCRIPTIONS, *MAIL_SUBSCRIPTIONS)
)

SERVICES: tuple[str, ...] = tuple(dict.fromkeys(process.service for process in PROCESSES))


def process_named(name: str) -> ServiceProcess:
    """Return the row of the table.

    Raises KeyError with the known names when there is none.
    """
    for process in PROCESSES:
        if process.name == name:
            return process
    known = ", ".join(process.name for process in PROCESSES)
    raise KeyError(f"no process is called {name!r}; there are {known}")


def servers_for(broker: BrokerName) -> frozenset[ServerName]:
    """The servers that the services need when they run on `broker`."""
    return frozenset({"postgres", "redis", "mail", broker})
