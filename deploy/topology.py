"""What runs: the services, a row each, and the servers.

A service that is added here is started, watched, migrated, shown by `make status` and followed by `make logs`.
What is told of it elsewhere (in the Compose file, the script that creates databases, the README's table)
`make render` derives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BrokerName = Literal["rabbit", "kafka"]
ServerName = Literal["postgres", "redis", "rabbit", "kafka", "mail", "objects"]

BROKERS: tuple[BrokerName, ...] = ("rabbit", "kafka")
SERVERS: tuple[ServerName, ...] = ("postgres", "redis", "rabbit", "kafka", "mail", "objects")
USUAL_SERVERS: tuple[ServerName, ...] = tuple(name for name in SERVERS if name != "objects")
"""What is started unless it is said: the object storage is a Java of its own, which only the archive needs."""


@dataclass(frozen=True)
class ServiceProcess:
    """One process of a service.

    `roles` is what TANDEM_ROLES says, comma-separated. Every process answers /health/live,
    /health/ready and /metrics on `http_port`.
    """

    name: str
    service: str
    roles: str
    http_port: int

    @property
    def has_api(self) -> bool:
        """Whether this process serves the service's own HTTP interface."""
        return "api" in self.roles.split(",")


@dataclass(frozen=True)
class Service:
    """One service. `name` is its folder under services/ and its database.

    Its first process has `roles` (comma-separated) and `http_port`, which is the service's URL; with a
    `consumer_port` it has one more that only consumes, with a `worker_port` one more that only runs leased steps
    of its jobs. `subscriptions` are "<subscriber>.<channel>": each has
    a queue, or a consumer group, and a place for its dead letters; `mail_subscriptions` are there only where
    TANDEM_SMTP_URL is set. `interface` says in Markdown what it offers over HTTP, for the README.
    """

    name: str
    roles: str
    http_port: int
    consumer_port: int | None = None
    worker_port: int | None = None
    subscriptions: tuple[str, ...] = ()
    mail_subscriptions: tuple[str, ...] = ()
    interface: str = ""

    @property
    def processes(self) -> tuple[ServiceProcess, ...]:
        """Its processes; the first has the name of the service, as far as a host name may."""
        host = self.name.replace("_", "-")
        first = ServiceProcess(host, self.name, self.roles, self.http_port)
        more = {"consumer": self.consumer_port, "worker": self.worker_port}
        return (
            first,
            *(ServiceProcess(f"{host}-{role}", self.name, role, port) for role, port in more.items() if port),
        )


SERVICE_TABLE: tuple[Service, ...] = (
    Service(
        "user",
        roles="api,relay",
        http_port=8002,
        interface="`POST /users` · `GET`, `PATCH /users/{id}` · `POST /users/{id}/deactivate`",
    ),
    Service(
        "order",
        roles="api,relay",
        http_port=8001,
        consumer_port=8101,
        subscriptions=("order.user", "order.fraud"),
        interface="`POST /orders` · `GET /orders/{id}` · `GET /orders?user_id=&cursor=` · "
        "`POST /orders/{id}/pay` · `…/cancel`",
    ),
    Service(
        "notification",
        roles="api,worker",
        http_port=8003,
        consumer_port=8103,
        subscriptions=("notification.user", "notification.order", "notification.transfer"),
        mail_subscriptions=("mail.user", "mail.order", "mail.transfer"),
        interface="`GET /notifications?user_id=&order_id=` · sends each as a mail · `GET /schedules` · "
        "`GET /workers` · `GET /jobs`",
    ),
    Service(
        "jobs",
        roles="api,relay",
        http_port=8005,
        consumer_port=8105,
        worker_port=8205,
        subscriptions=("jobs.job",),
        interface="`POST /jobs/{kind}` · `GET /jobs` · `…/{id}` · `…/{id}/result` · `/groups/{id}/result` · "
        "`GET /jobs/{id}/events` · `POST /jobs/{id}/cancel` · `…/retry` · `GET /schedules` · `GET /workers` · "
        "`POST /workers/{id}/drain`",
    ),
    Service(
        "report",
        roles="api,consumer,worker",
        http_port=8006,
        subscriptions=("report.order", "report.user"),
        interface="`POST /v1/reports/sales` · `GET …/{id}` · `…/{id}/pdf` · `POST …/{id}/cancel` · `…/retry` · "
        "`GET /schedules` · `GET /workers` · `GET /jobs`",
    ),
    Service(
        "fraud",
        roles="api,relay,consumer,worker",
        http_port=8007,
        subscriptions=("fraud.order", "fraud.user"),
        interface="`GET /evaluations?verdict=&cursor=` · `…/{order_id}` · `GET /threat-list` · `GET /schedules` · "
        "`GET /workers` · `GET /jobs`",
    ),
    Service(
        "wallet",
        roles="api,relay,consumer",
        http_port=8008,
        subscriptions=("wallet.user", "wallet.transfer", "wallet.share"),
        interface="`POST /session` · `GET /accounts` · `…/{id}` · `…/{id}/entries` · `POST /transfers` · "
        "`…/quote` · `GET /transfers` · `…/{id}` · `POST …/{id}/cancel` · `POST /distributions` · "
        "`GET …/{token}` · `POST /receive` · `GET /receipts/{id}` · administration under `/admin` · "
        "for people, [`/transfer`](http://127.0.0.1:8008/transfer)",
    ),
    Service(
        "dead_letter",
        roles="api,consumer",
        http_port=8004,
        interface="`GET /dead-letters` · `…/groups` · `…/{id}` · `POST …/{id}/redrive` · `…/{id}/discard` · "
        "`POST /dead-letters/redrive`",
    ),
)

EXAMPLE_THREATS = "/example-threats.txt"
"""Where the fraud service has a threat-intelligence list to try with, which `make up-*` has it fetch."""

SERVICES: tuple[str, ...] = tuple(service.name for service in SERVICE_TABLE)
PROCESSES: tuple[ServiceProcess, ...] = tuple(row for service in SERVICE_TABLE for row in service.processes)


def _pairs(named: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((subscriber, channel) for subscriber, _, channel in (name.partition(".") for name in named))


SUBSCRIPTIONS = tuple(pair for service in SERVICE_TABLE for pair in _pairs(service.subscriptions))
"""Subscriber and channel of each."""
MAIL_SUBSCRIPTIONS = tuple(pair for service in SERVICE_TABLE for pair in _pairs(service.mail_subscriptions))
"""Those that are there only where TANDEM_SMTP_URL is set."""

DEAD_LETTER_SUBSCRIPTIONS = ",".join(
    f"{subscriber}.{channel}" for subscriber, channel in (*SUBSCRIPTIONS, *MAIL_SUBSCRIPTIONS)
)
"""Whose dead letters the dead-letter service keeps, as the setting TANDEM_DEAD_LETTER_SUBSCRIPTIONS."""


def own_settings(service: str, url_of: Callable[[ServiceProcess], str]) -> dict[str, str]:
    """The settings that a service has because of what else runs, as TANDEM_… variables.

    `url_of` says where a process answers.
    """
    if service == "dead_letter":
        return {"TANDEM_DEAD_LETTER_SUBSCRIPTIONS": DEAD_LETTER_SUBSCRIPTIONS}
    if service == "jobs":
        others = [row for row in PROCESSES if "worker" in row.roles.split(",") and row.service != service]
        elsewhere = ",".join(f"{row.service}={url_of(process_of(row.service))}" for row in others)
        return {"TANDEM_SCHEDULES_ELSEWHERE": elsewhere}
    return {}


def process_named(name: str) -> ServiceProcess:
    """Return the row of the table.

    Raises KeyError with the known names when there is none.
    """
    for process in PROCESSES:
        if process.name == name:
            return process
    known = ", ".join(process.name for process in PROCESSES)
    raise KeyError(f"no process is called {name!r}; there are {known}")


def process_of(service: str) -> ServiceProcess:
    """The first process of a service, which is the one with its HTTP interface."""
    return next(row for row in PROCESSES if row.service == service)


def servers_for(broker: BrokerName) -> frozenset[ServerName]:
    """The servers that the services need when they run on `broker`."""
    return frozenset({"postgres", "redis", "mail", "objects", broker})
