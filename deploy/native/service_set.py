"""The service processes of an instance: their names, ports, environment and migrations."""

import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.errors import StartError
from deploy.native.program import Program
from deploy.native.servers import postgres, redis
from deploy.native.servers.table import BROKERS_BY_NAME, SERVERS_BY_NAME
from deploy.native.site import Site
from deploy.paths import REPOSITORY
from deploy.topology import PROCESSES, SERVICES, BrokerName, ServerName, own_settings, process_named
from shared.settings import Settings

_MIGRATION_TIMEOUT_S = 120
# A service drains what it has in flight within its grace period, and then says good-bye.
_GRACE_S = Settings.model_fields["shutdown_grace_s"].default
_GOODBYES_S = 10

# What the runtime decides: where everything is and what runs in which process.
RUNTIME_SETTINGS = frozenset(
    {
        "TANDEM_BROKER",
        "TANDEM_ROLES",
        "TANDEM_PROCESS",
        "TANDEM_HTTP_HOST",
        "TANDEM_HTTP_PORT",
        "TANDEM_POSTGRES_DSN",
        "TANDEM_REDIS_URL",
        "TANDEM_RABBIT_URL",
        "TANDEM_KAFKA_BOOTSTRAP",
        "TANDEM_KAFKA_TLS",
        "TANDEM_KAFKA_USER",
        "TANDEM_KAFKA_PASSWORD",
        "TANDEM_KAFKA_SASL_MECHANISM",
        "TANDEM_BROKER_CA_FILE",
        "TANDEM_BROKER_PREFIX",
        "TANDEM_OTLP_DIR",
        "TANDEM_DEAD_LETTER_SUBSCRIPTIONS",
        "TANDEM_SCHEDULES_ELSEWHERE",
    }
)

_BEGUN_WITH = (
    "opentelemetry.exporter.otlp.json.file",
    "opentelemetry.exporter.prometheus",
    "shared.http.idempotency",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.httptools_impl",
)
"""What a service's process imports after its own modules, when it begins."""


@dataclass(frozen=True)
class RunningProcess:
    """A process as it is called in this instance; `process` is its row of the process table."""

    name: str
    process: str
    service: str
    http_port: int

    @property
    def url(self) -> str:
        """Where it answers HTTP."""
        return f"http://127.0.0.1:{self.http_port}"


@dataclass(frozen=True)
class ServiceSet:
    """All services once, on one broker.

    `name` is empty for the only set. A named set has its own process names (`kafka-order`), databases
    (`kafka_order`), Redis database and ports, so two sets can run side by side in one instance.
    """

    name: str
    broker: BrokerName
    number: int
    processes: tuple[RunningProcess, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By process of the table: what runs in its place, a module and its arguments."""

    @property
    def group(self) -> str:
        """Supervisor's name for it."""
        return self.name or "services"

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases of the set."""
        return tuple(self.database(service) for service in SERVICES)

    def database(self, service: str) -> str:
        """The database of a service."""
        return f"{self.name}_{service}" if self.name else service

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ServiceSet":
        """Read what `as_dict` wrote."""
        processes = tuple(RunningProcess(**row) for row in values["processes"])
        return cls(**{**values, "processes": processes})


def lay_out(
    site: Site,
    broker: BrokerName,
    *,
    name: str,
    number: int,
    replicas: Mapping[str, int],
    environment: Mapping[str, str],
    modules: Mapping[str, Sequence[str]] | None = None,
) -> ServiceSet:
    """Give every process of a set its name and port. Replica 1 has the plain name, then `-2`, `-3`, ….

    Raises KeyError for a replica count of an unknown process, DeployError when the ports run out.
    """
    for process in replicas:
        process_named(process)
    prefix = f"{name}-" if name else ""
    rows = [
        RunningProcess(
            name=f"{prefix}{row.name}" + (f"-{replica}" if replica > 1 else ""),
            process=row.name,
            service=row.service,
            http_port=site.ports.http(row.name, replica, number),
        )
        for row in PROCESSES
        for replica in range(1, replicas.get(row.name, 1) + 1)
    ]
    return ServiceSet(name, broker, number, tuple(rows), dict(environment), dict(modules or {}))


def environment_of(site: Site, service_set: ServiceSet, process: RunningProcess) -> dict[str, str]:
    """The settings of one process; only the chosen broker is named."""
    told = BROKERS_BY_NAME[service_set.broker].settings(site)
    return {
        "TANDEM_BROKER": service_set.broker,
        "TANDEM_ROLES": process_named(process.process).roles,
        "TANDEM_PROCESS": process.name,
        "TANDEM_HTTP_HOST": "127.0.0.1",
        "TANDEM_HTTP_PORT": str(process.http_port),
        "TANDEM_POSTGRES_DSN": _address(
            site, "postgres", postgres.dsn(site, service_set.database(process.service))
        ),
        "TANDEM_REDIS_URL": redis.url(site, service_set.number),
        **{name: _address(site, service_set.broker, value) for name, value in told.items()},
        **own_settings(
            process.service,
            lambda row: f"http://127.0.0.1:{site.ports.http(row.name, 1, service_set.number)}",
        ),
        "TANDEM_OTLP_DIR": str(site.telemetry),
        "TANDEM_LOG_LEVEL": "INFO",
        "PYTHONUNBUFFERED": "1",
        **service_set.environment,
    }


def _address(site: Site, server: ServerName, url: str) -> str:
    """The server's own URL, or the one of the proxy before it."""
    if not site.ports.proxied:
        return url
    proxy, _ = site.ports.proxies[server]
    return url.replace(f"127.0.0.1:{SERVERS_BY_NAME[server].port(site)}", f"127.0.0.1:{proxy}")


def imported_on(broker: BrokerName) -> list[str]:
    """What all services together import, when they run on this broker.

    What is missing here costs time only: the process imports it itself.
    """
    own = [f"services.{service}.{part}" for service in SERVICES for part in ("app", "http")]
    return [*own, f"shared.broker.{broker}.adapter", *_BEGUN_WITH]


def programs(site: Site, service_set: ServiceSet) -> list[Program]:
    """How supervisor runs the set."""
    return [
        program(
            process, environment_of(site, service_set, process), module=service_set.modules.get(process.process)
        )
        for process in service_set.processes
    ]


def program(
    process: RunningProcess,
    environment: Mapping[str, str],
    *,
    module: Sequence[str] | None = None,
    autorestart: bool = True,
) -> Program:
    """How supervisor runs one process; `module` (with arguments) runs in place of the service's own."""
    return Program(
        process.name,
        [sys.executable, "-m", *(module or [f"services.{process.service}.app"])],
        environment=environment,
        stop_timeout_s=_grace_s(environment) + _GOODBYES_S,
        autorestart=autorestart,
    )


def _grace_s(environment: Mapping[str, str]) -> int:
    given = environment.get("TANDEM_SHUTDOWN_GRACE_S") or _GRACE_S
    try:
        return math.ceil(float(given))
    except (ValueError, OverflowError) as error:
        raise StartError(f"TANDEM_SHUTDOWN_GRACE_S must be a number of seconds, not {given!r}") from error


def newest_version(service: str) -> str:
    """The version of the service's newest migration, as its file is called: `v0003_note.py` is 0003."""
    files = (REPOSITORY / "services" / service / "migrations").glob("v*_*.py")
    return max(file.name.partition("_")[0].removeprefix("v") for file in files)


async def migrate(site: Site, service_set: ServiceSet, services: Sequence[str] = SERVICES) -> None:
    """Bring the databases of a set to the newest schema.

    Here, one after the other: a process for each would take longer to start than to migrate. Raises StartError
    naming the service.
    """
    behind = [
        service
        for service in services
        if await postgres.schema_version(site, service_set.database(service)) != newest_version(service)
    ]
    if not behind:
        return
    # Here, because it brings Alembic and SQLAlchemy, which a start with databases that are there can spare.
    from shared.migrate import MigrationError, bring_up_to_date

    for service in behind:
        try:
            async with asyncio.timeout(_MIGRATION_TIMEOUT_S):
                await bring_up_to_date(service, postgres.dsn(site, service_set.database(service)))
        except MigrationError as error:
            raise StartError(str(error)) from error
        except TimeoutError as error:
            raise StartError(f"migrating the database of {service} took over {_MIGRATION_TIMEOUT_S} s") from error
