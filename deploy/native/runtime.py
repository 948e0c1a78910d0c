"""An instance of Tandem: servers and services on ports and data of its own."""

import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.errors import DeployError
from deploy.native import service_set as services
from deploy.native.addresses import Addresses
from deploy.native.environment import forget_libpq
from deploy.native.install.install import Installed, ensure_installed, versions
from deploy.native.inventory import Inventory
from deploy.native.ports import Ports, require_free
from deploy.native.processes import Processes, run_async
from deploy.native.servers import postgres, rabbit, table
from deploy.native.service_set import RunningProcess, ServiceSet
from deploy.native.site import Durability, Site
from deploy.native.supervision import Supervisor
from deploy.progress import Steps
from deploy.topology import BROKERS, PROCESSES, USUAL_SERVERS, BrokerName, ServerName

_SERVERS_GROUP = "servers"
_SERVERS_PRIORITY = 10
_SERVICES_PRIORITY = 20  # supervisor stops the highest first


class Runtime:
    """Servers and services under one root directory.

    `processes` acts on single ones, `addresses` says where each answers; `servers` names the servers, `sets` holds
    the sets of services by name.

    Every method blocks; in async code call them through `asyncio.to_thread`. What a method starts has answered
    a real request when the method returns. With `watch_parent` (the default) the instance ends soon after this
    Python process has ended; `make up-*` turns that off. `durability` is when its brokers confirm, `password` that
    of servers which are there already. What it starts has an environment of its own making; for its own
    connections libpq's variables are taken out of this process. With `forks` its services are forked from one
    process that has imported what they need; else each is started, as elsewhere. All errors are DeployError with a
    sentence for a person.
    """

    def __init__(
        self,
        root: Path,
        ports: Ports,
        *,
        servers: Collection[ServerName] = USUAL_SERVERS,
        watch_parent: bool = True,
        steps: Steps | None = None,
        durability: Durability = "usual",
        password: str | None = None,
        forks: bool = False,
    ) -> None:
        forget_libpq()
        self.site = Site.open(root, ports, durability, password)
        self._inventory = Inventory(self.site, servers)
        self.servers = self._inventory.servers
        self.sets = self._inventory.sets
        self._watched_parent = os.getpid() if watch_parent else None
        self._forks = forks
        self._steps = steps or Steps()
        self._supervisor = Supervisor(self.site)
        self.addresses = Addresses(self._inventory)
        self.processes = Processes(self._inventory, self._supervisor, self._steps)
        self._installed: Installed | None = None

    @classmethod
    def attach(cls, root: Path, steps: Steps | None = None) -> Self:
        """Come back to an instance that another process started.

        Raises DeployError when there is none under `root`.
        """
        known = Inventory.read(root)
        runtime = cls(root, known.site.ports, servers=known.servers, watch_parent=False, steps=steps)
        runtime.sets.update(known.sets)
        return runtime

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def root(self) -> Path:
        """Everything of the instance is below it."""
        return self.site.root

    @property
    def running(self) -> bool:
        """Whether the instance is up, in whatever state its processes are."""
        return self._supervisor.pid() is not None

    def server_urls(self) -> dict[str, str]:
        """URL of every server's process, with password."""
        return self.addresses.server_urls()

    def dsn(self, database: str) -> str:
        """postgresql:// URL of a database, with password."""
        return self.addresses.dsn(database)

    def versions(self) -> dict[str, str]:
        """Versions of the servers."""
        return versions(self._install())

    # -- servers

    def start_servers(self) -> None:
        """Install what is missing, start every server of the instance and wait until all are ready.

        Nothing is left running when one of them does not come up.
        """
        self._start_servers()

    def start_all(self, broker: BrokerName, env_overrides: Mapping[str, str]) -> ServiceSet:
        """Start the servers and one set of services: sooner than by `start_servers` and `start_services`.

        What the services need is made ready while the broker starts, which takes the longest.
        """
        made = self._inventory.lay_out(broker, "", {}, env_overrides)
        self._start_servers(lambda: self._prepare(made))
        self._start_set(made, made.processes)
        return made

    def _start_servers(self, meanwhile: Callable[[], None] | None = None) -> None:
        if self.running:
            raise DeployError(f"an instance already runs in {self.root}")
        installed = self._install()
        require_free(self._server_ports())
        try:
            with ThreadPoolExecutor(max_workers=4) as pool:
                wanted = [table.SERVERS_BY_NAME[name] for name in self.servers]
                prepared = list(pool.map(lambda server: server.prepare(self.site, installed), wanted))
            self._inventory.save()
            self._supervisor.launch(self._watched_parent, forks=self._forks)
            programs = [program for part in prepared for program in part]
            self._supervisor.add_group(_SERVERS_GROUP, programs, _SERVERS_PRIORITY)
            for program in programs:
                self._supervisor.start(program.name)
            titles = {
                process: f"starting {table.SERVERS_BY_NAME[name].title}"
                for name in self.servers
                for process in table.process_names(self.site, name)
            }
            self.processes.wait_all_ready(titles, titles=titles, meanwhile=meanwhile)
        except BaseException:
            self._end(at_once=BROKERS)  # while they start they take half a minute to be stopped in good order
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

        run_async(create_all)

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
        modules: Mapping[str, Sequence[str]] | None = None,
        wait: bool = True,
    ) -> ServiceSet:
        """Create and migrate the databases, start the services on `broker` and wait until they are ready.

        `processes` (names of the process table; all when None) says which are started now; the others can be
        started later with `processes.start`. `instance` names a second set beside the first. A set of that name
        which already runs is replaced. `modules`, by process of the table, run in place of the services' own.
        """
        made = self._inventory.lay_out(broker, instance, replicas or {}, env_overrides or {}, modules)
        chosen = [row for row in made.processes if processes is None or row.process in processes]
        self._supervisor.remove_group(made.group)
        require_free({f"HTTP of {row.name}": row.http_port for row in made.processes})
        self._prepare(made)
        self._start_set(made, chosen, wait=wait)
        return made

    def stop_services(self, instance: str = "") -> None:
        """Stop a set of services and forget it; its databases stay."""
        gone = self.sets.pop(instance, None)
        if gone is not None:
            self._supervisor.remove_group(gone.group)
            self._inventory.save()

    def service_env(self, process: str, broker: BrokerName, instance: str = "") -> dict[str, str]:
        """The environment that `process` gets, also for running it (or a part of it) by hand."""
        known = self.sets.get(instance) or self._inventory.lay_out(broker, instance, {}, {})
        for row in known.processes:
            if process in (row.name, row.process):
                return services.environment_of(self.site, known, row)
        raise DeployError(f"no service process is called {process!r}")

    # -- the end

    def stop(self, *, remove: bool = False) -> None:
        """End every process of the instance; none is left when this returns. With `remove` its data goes too."""
        # Asked to stop, they put data in order that is about to be deleted, for up to half a minute.
        self._end(at_once=(*BROKERS, "postgres") if remove else ())
        if remove:
            self.site.remove()

    # -- inside

    def _prepare(self, made: ServiceSet) -> None:
        """What a set needs and the broker has no part in: as soon as PostgreSQL answers, its databases; and, where
        it will be forked, all that its processes import."""
        if "postgres" in self.servers:
            self.processes.wait_ready("postgres")
        with ThreadPoolExecutor(max_workers=1) as pool:
            importing = pool.submit(self._supervisor.preload, services.imported_on(made.broker))
            with self._steps.step("creating and migrating the databases"):
                self.ensure_databases(made.databases)
                run_async(lambda: services.migrate(self.site, made))
            importing.result()

    def _start_set(self, made: ServiceSet, chosen: Collection[RunningProcess], *, wait: bool = True) -> None:
        self.sets[made.name] = made
        self._inventory.save()
        programs = services.programs(self.site, made)
        self._supervisor.add_group(made.group, programs, _SERVICES_PRIORITY + made.number)
        for row in chosen:
            self._supervisor.start(row.name)
        if wait:
            with self._steps.step(f"starting the services on {table.SERVERS_BY_NAME[made.broker].title}"):
                self.processes.wait_all_ready([row.name for row in chosen])

    def _end(self, *, at_once: Collection[ServerName]) -> None:
        if at_once and self.running:
            with suppress(OSError):  # supervisord is ending already: nothing is faster than that
                self._end_at_once(at_once)
        self._supervisor.shutdown()
        self.sets.clear()
        self._inventory.save()

    def _end_at_once(self, servers: Collection[ServerName]) -> None:
        for name in [*self.sets]:
            self.stop_services(name)  # they take their leave of servers that are still there
        running = {row["name"] for row in self.processes.rows() if row["pid"]}
        nodes = {name for server in servers for name in table.process_names(self.site, server)}
        for name in running & nodes:
            self._supervisor.stop(name, wait=False)
            # Killed, PostgreSQL would leave its shared memory behind.
            self.processes.kill(name, signal.SIGQUIT if name == "postgres" else signal.SIGKILL)

    def _install(self) -> Installed:
        if self._installed is None:
            self._installed = ensure_installed(self.servers, self._steps)
        return self._installed

    def _server_ports(self) -> dict[str, int]:
        of_each = [table.ports_of(self.site, name) for name in self.servers]
        return {purpose: port for ports in of_each for purpose, port in ports.items()}
