"""An instance of Tandem: servers and services on ports and data of its own."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from deploy.errors import DeployError
from deploy.native import service_set as services
from deploy.native.install.install import Installed, ensure_installed, versions
from deploy.native.ports import Ports, require_free
from deploy.native.readiness import Probe, await_ready, http_probe
from deploy.native.servers import mail, postgres, rabbit
from deploy.native.servers import server as servers
from deploy.native.service_set import RunningProcess, ServiceSet
from deploy.native.site import Site, read_state, write_state
from deploy.native.supervision import Supervisor
from deploy.progress import Steps
from deploy.topology import BROKERS, PROCESSES, SERVERS, SERVICES, BrokerName, ServerName, process_named

# Generous, since a loaded machine is slow and a process that crashes is noticed at once.
SERVER_TIMEOUT_S = 120.0
SERVICE_TIMEOUT_S = 120.0
Wait = Callable[[threading.Event], None]
_SERVERS_GROUP = "servers"


class Runtime:
    """Servers and services under one root directory.

    Every method blocks; in async code call them through `asyncio.to_thread`. What a method starts has answered
    a real request when the method returns. With `watch_parent` (the default) the instance ends soon after this
    Python process has ended; `make up-*` turns that off. All errors are DeployError with a sentence for a person.
    """

    def __init__(
        self,
        root: Path,
        ports: Ports,
        *,
        servers: Collection[ServerName] = SERVERS,
        watch_parent: bool = True,
        steps: Steps | None = None,
    ) -> None:
        self.site = Site.open(root, ports)
        self.servers: tuple[ServerName, ...] = tuple(name for name in SERVERS if name in servers)
        self.sets: dict[str, ServiceSet] = {}
        self._watched_parent = os.getpid() if watch_parent else None
        self._steps = steps or Steps()
        self._supervisor = Supervisor(self.site)
        self._installed: Installed | None = None

    @classmethod
    def attach(cls, root: Path, steps: Steps | None = None) -> Self:
        """Come back to an instance that another process started.

        Raises DeployError when there is none under `root`.
        """
        state = read_state(root.resolve())
        if not state:
            raise DeployError(f"there is no instance in {root}")
        ports = Ports.from_dict(state["ports"])
        runtime = cls(root, ports, servers=state["servers"], watch_parent=False, steps=steps)
        runtime.sets = {name: ServiceSet.from_dict(values) for name, values in state["sets"].items()}
        return runtime

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- where things are

    @property
    def root(self) -> Path:
        """Everything of the instance is below it."""
        return self.site.root

    @property
    def running(self) -> bool:
        """Whether the instance is up, in whatever state its processes are."""
        return self._supervisor.pid() is not None

    @property
    def server_processes(self) -> list[str]:
        """The names of the servers' processes: a cluster has `kafka`, `kafka-2`, `kafka-3`."""
        return [process for name in self.servers for process in servers.process_names(self.site, name)]

    def server_urls(self) -> dict[str, str]:
        """URL of every server's process, with password."""
        return {name: servers.url(self.site, name) for name in self.server_processes}

    def service_urls(self, instance: str = "") -> dict[str, str]:
        """HTTP base URL of every service of a set."""
        rows = self.sets[instance].processes
        first = {row.service: row.url for row in reversed(rows) if process_named(row.process).has_api}
        return {service: first[service] for service in SERVICES if service in first}

    def process_urls(self, instance: str = "") -> dict[str, str]:
        """HTTP base URL of every process of a set, for health and metrics."""
        return {row.name: row.url for row in self.sets[instance].processes}

    def dsn(self, database: str) -> str:
        """postgresql:// URL of a database."""
        return postgres.dsn(self.site, database)

    @property
    def maildir(self) -> Path:
        """Where the development mail server keeps what it took: a file per mail, in `new`."""
        return mail.maildir(self.site)

    @property
    def management_url(self) -> str:
        """RabbitMQ's management API; same user and password as in the AMQP URL."""
        return rabbit.management_url(self.site)

    def service_env(self, process: str, broker: BrokerName, instance: str = "") -> dict[str, str]:
        """The environment that `process` gets, also for running it (or a part of it) by hand."""
        known = self.sets.get(instance) or self._lay_out(broker, instance, {}, {})
        for row in known.processes:
            if process in (row.name, row.process):
                return services.environment_of(self.site, known, row)
        raise DeployError(f"no service process is called {process!r}")

    def versions(self) -> dict[str, str]:
        """Versions of the servers."""
        return versions(self._install())

    # -- servers

    def start_servers(self) -> None:
        """Install what is missing, start every server of the instance and wait until all are ready.

        Nothing is left running when one of them does not come up.
        """
        if self.running:
            raise DeployError(f"an instance already runs in {self.root}")
        installed = self._install()
        require_free(self._server_ports())
        try:
            with ThreadPoolExecutor(max_workers=4) as pool:
                prepared = list(pool.map(lambda name: servers.prepare(self.site, name, installed), self.servers))
            self._save()
            self._supervisor.launch(self._watched_parent)
            programs = [program for part in prepared for program in part]
            self._supervisor.add_group(_SERVERS_GROUP, programs, priority=10)
            for program in programs:
                self._supervisor.start(program.name)
            titles = {
                process: servers.TITLES[name]
                for name in self.servers
                for process in servers.process_names(self.site, name)
            }
            self._together(
                [self._waiting(name, SERVER_TIMEOUT_S, f"starting {title}") for name, title in titles.items()]
            )
        except BaseException:
            self.stop()
            raise

    def require_free_ports(self) -> None:
        """Check that no other process has a port that the servers, or one set of services, will need.

        Raises PortTakenError naming the port and, when it can be found, the process.
        """
        http = {f"HTTP of {row.name}": self.site.ports.http(row.name) for row in PROCESSES}
        require_free({**self._server_ports(), **http})

    def ensure_databases(self, names: Collection[str]) -> None:
        """Create the databases that do not exist yet."""

        async def create_all() -> None:
            for name in names:
                await postgres.create_database(self.site, name)

        _run_async(create_all)

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on the node and return its output; takes about a second."""
        install = self._install().rabbit
        if install is None:
            raise DeployError("this instance has no RabbitMQ")
        return rabbit.control(self.site, install, *arguments)

    # -- services

    def start_services(
        self,
        broker: BrokerName,
        processes: Collection[str] | None = None,
        *,
        instance: str = "",
        env_overrides: Mapping[str, str] | None = None,
        replicas: Mapping[str, int] | None = None,
        wait: bool = True,
    ) -> ServiceSet:
        """Create and migrate the databases, start the services on `broker` and wait until they are ready.

        `processes` (names of the process table; all when None) says which are started now; the others can be
        started later with `start_process`. `instance` names a second set beside the first. A set of that name
        which already runs is replaced.
        """
        made = self._lay_out(broker, instance, replicas or {}, env_overrides or {})
        chosen = [row for row in made.processes if processes is None or row.process in processes]
        self._supervisor.remove_group(made.group)
        require_free({f"HTTP of {row.name}": row.http_port for row in made.processes})
        with self._steps.step("creating and migrating the databases"):
            self.ensure_databases(made.databases)
            _run_async(lambda: services.migrate(self.site, made))
        self.sets[instance] = made
        self._save()
        self._supervisor.add_group(made.group, services.programs(self.site, made), priority=20 + made.number)
        for row in chosen:
            self._supervisor.start(row.name)
        if wait:
            with self._steps.step(f"starting the services on {servers.TITLES[broker]}"):
                self._together([self._waiting(row.name, SERVICE_TIMEOUT_S) for row in chosen])
        return made

    def stop_services(self, instance: str = "") -> None:
        """Stop a set of services and forget it; its databases stay."""
        gone = self.sets.pop(instance, None)
        if gone is not None:
            self._supervisor.remove_group(gone.group)
            self._save()

    def start_extra(
        self,
        name: str,
        suffix: str,
        environment: Mapping[str, str] | None = None,
        *,
        in_place: bool = False,
        module: Sequence[str] | None = None,
    ) -> str:
        """Start one more process like the service process `name`, with settings of its own; return its name.

        It is ready when this returns, and is not restarted when it ends. `in_place`: on the port of `name`, which
        must be stopped. `module` (with arguments) runs in place of the service's own. It belongs to the set of
        `name` until `stop_extra`.
        """
        made = next(service_set for service_set in self.sets.values() if self._row(name) in service_set.processes)
        row = self._row(name)
        like = sum(other.process == row.process for other in made.processes)
        port = row.http_port if in_place else self.site.ports.http(row.process, like + 1, made.number)
        extra = replace(row, name=f"{name}-{suffix}", http_port=port)
        self.sets[made.name] = replace(made, processes=(*made.processes, extra))
        values = {**services.environment_of(self.site, made, extra), **(environment or {})}
        program = services.program(extra, values, module=module, autorestart=False)
        self._supervisor.add_group(extra.name, [program], priority=30)
        self.start_process(extra.name)
        return extra.name

    def stop_extra(self, name: str) -> None:
        """Stop a process of `start_extra`, if it still runs, and forget it."""
        self._supervisor.remove_group(name)
        for key, made in self.sets.items():
            rows = tuple(row for row in made.processes if row.name != name)
            self.sets[key] = replace(made, processes=rows)

    # -- single processes: a server (`postgres`) or a service process (`order-consumer`, `kafka-order`)

    def start_process(self, name: str, *, wait: bool = True) -> None:
        """Start a process that was stopped or not yet started."""
        self._supervisor.start(name)
        if wait:
            self.wait_ready(name)

    def stop_process(self, name: str) -> None:
        """Stop a process gracefully, killed after its time; it stays down until `start_process`."""
        self._supervisor.stop(name)

    def restart(self, name: str, *, wait: bool = True) -> None:
        """Stop and start a process."""
        self.stop_process(name)
        self.start_process(name, wait=wait)

    def wait_ready(self, name: str, timeout_s: float = SERVICE_TIMEOUT_S) -> None:
        """Wait until a process answers; for one that was killed, until its successor does."""
        self._together([self._waiting(name, timeout_s)])

    def pids(self, name: str) -> list[int]:
        """The process ids of a process, the supervised one first, then its descendants; empty when it is down."""
        row = self._supervisor.process(name)
        if not row["pid"]:
            return []
        try:
            return [row["pid"], *(child.pid for child in psutil.Process(row["pid"]).children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> list[int]:
        """Send a signal to a process and its descendants; returns their ids. Supervisor restarts what ends.

        After SIGKILL they are gone when this returns.
        """
        pids = self.pids(name)
        ended = []
        for pid in pids:
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                ended.append(psutil.Process(pid))
                os.kill(pid, signal_number)
        if signal_number == signal.SIGKILL:
            psutil.wait_procs(ended, timeout=10)
        return pids

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.site.logs / f"{name}.log"

    def log_tail(self, name: str, lines: int = 50) -> str:
        """The last lines of a process's log."""
        try:
            text = self.log(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def processes(self) -> list[dict[str, Any]]:
        """Supervisor's rows: `name`, `group`, `statename`, `pid`, …"""
        return self._supervisor.processes()

    def is_healthy(self, name: str) -> bool:
        """Whether a server or a service process answers right now."""
        probe = self._probe(name)
        try:
            _run_async(lambda: asyncio.wait_for(probe(), timeout=10))
        except Exception:  # noqa: BLE001  whatever a client says: it did not answer
            return False
        return True

    # -- the end

    def stop(self, *, remove: bool = False) -> None:
        """End every process of the instance; none is left when this returns. With `remove` its data goes too."""
        if remove and self.running:
            with suppress(OSError):  # supervisord is ending already: nothing is faster than that
                self._end_brokers_at_once()
        self._supervisor.shutdown()
        self.sets.clear()
        self._save()
        if remove:
            self.site.remove()

    # -- inside

    def _end_brokers_at_once(self) -> None:
        """A broker that is asked to stop takes seconds to put data in order that is about to be deleted."""
        for name in [*self.sets]:
            self.stop_services(name)  # they take their leave of a broker that is still there
        running = {row["name"] for row in self.processes() if row["pid"]}
        nodes = {name for broker in BROKERS for name in servers.process_names(self.site, broker)}
        for name in running & nodes:
            self._supervisor.stop(name, wait=False)
            self.kill(name)

    def _install(self) -> Installed:
        if self._installed is None:
            self._installed = ensure_installed(self.servers, self._steps)
        return self._installed

    def _probe(self, name: str) -> Probe:
        if servers.is_server(name):
            return servers.probe(self.site, name)
        return http_probe(f"{self._row(name).url}/health/ready")

    def _server_ports(self) -> dict[str, int]:
        return {purpose: port for name in self.servers for purpose, port in servers.ports(self.site, name).items()}

    def _waiting(self, name: str, timeout_s: float, title: str | None = None) -> Wait:
        """The work of waiting for one process, shown as a step when it has a title."""
        probe, log = self._probe(name), self.log(name)

        def wait(cancelled: threading.Event) -> None:
            with self._steps.step(title) if title else nullcontext():
                await_ready(name, probe, self._supervisor, log, timeout_s=timeout_s, cancelled=cancelled)

        return wait

    @staticmethod
    def _together(waits: Sequence[Wait]) -> None:
        """Run waits at the same time, in threads (the caller may be inside an event loop).

        The first failure, or an interrupt, ends the others.
        """
        cancelled = threading.Event()
        with ThreadPoolExecutor(max_workers=max(1, len(waits))) as pool:
            futures = [pool.submit(wait, cancelled) for wait in waits]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                cancelled.set()
                raise

    def _lay_out(
        self, broker: BrokerName, instance: str, replicas: Mapping[str, int], environment: Mapping[str, str]
    ) -> ServiceSet:
        known = self.sets.get(instance)
        taken = {other.number for name, other in self.sets.items() if name != instance}
        number = known.number if known else next(n for n in range(16) if n not in taken)
        return services.lay_out(
            self.site, broker, name=instance, number=number, replicas=replicas, environment=environment
        )

    def _row(self, name: str) -> RunningProcess:
        for service_set in self.sets.values():
            for row in service_set.processes:
                if row.name == name:
                    return row
        raise DeployError(f"no service process is called {name!r}")

    def _save(self) -> None:
        state = {
            "runtime": "native",
            "ports": self.site.ports.as_dict(),
            "password": self.site.password,
            "servers": list(self.servers),
            "sets": {name: service_set.as_dict() for name, service_set in self.sets.items()},
        }
        write_state(self.root, state)


def _run_async(work: Probe) -> None:
    """Run a coroutine function to its end, in a thread: the caller may be inside an event loop."""

    async def whole() -> None:
        await work()

    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, whole()).result()
