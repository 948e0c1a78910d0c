"""What an instance consists of: its directory, its servers and its sets of services."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from deploy.errors import DeployError
from deploy.native import service_set as services
from deploy.native.ports import Ports
from deploy.native.servers.table import process_names
from deploy.native.service_set import RunningProcess, ServiceSet
from deploy.native.site import Site, read_state, write_state
from deploy.topology import SERVERS, BrokerName, ServerName

_SETS_MAX = 16  # a Redis database each


class Inventory:
    """Names everything of one instance; `save` writes it down, `read` takes it up again in another process."""

    def __init__(self, site: Site, wanted: Collection[ServerName]) -> None:
        self.site = site
        self.servers: tuple[ServerName, ...] = tuple(name for name in SERVERS if name in wanted)
        self.sets: dict[str, ServiceSet] = {}

    @classmethod
    def read(cls, root: Path) -> "Inventory":
        """Take up what `save` wrote under `root`.

        Raises DeployError when there is no instance.
        """
        root = root.resolve()
        state = read_state(root)
        if not state:
            raise DeployError(f"there is no instance in {root}")
        inventory = cls(Site.open(root, Ports.from_dict(state["ports"])), state["servers"])
        inventory.sets = {name: ServiceSet.from_dict(values) for name, values in state["sets"].items()}
        return inventory

    def save(self) -> None:
        """Write it all down in the instance's directory."""
        state = {
            "runtime": "native",
            "ports": self.site.ports.as_dict(),
            "password": self.site.password,
            "servers": list(self.servers),
            "sets": {name: service_set.as_dict() for name, service_set in self.sets.items()},
        }
        write_state(self.site.root, state)

    @property
    def server_processes(self) -> list[str]:
        """The names of the servers' processes: a cluster has `kafka`, `kafka-2`, `kafka-3`."""
        return [process for name in self.servers for process in process_names(self.site, name)]

    def row(self, name: str) -> RunningProcess:
        """The service process of that name, whichever set it belongs to.

        Raises DeployError when there is none.
        """
        for service_set in self.sets.values():
            for row in service_set.processes:
                if row.name == name:
                    return row
        raise DeployError(f"no service process is called {name!r}")

    def set_of(self, row: RunningProcess) -> ServiceSet:
        """The set that the process belongs to."""
        return next(service_set for service_set in self.sets.values() if row in service_set.processes)

    def lay_out(
        self,
        broker: BrokerName,
        name: str,
        replicas: Mapping[str, int],
        environment: Mapping[str, str],
        modules: Mapping[str, Sequence[str]] | None = None,
    ) -> ServiceSet:
        """Make a set called `name` beside the others; one of that name gives its number, and so its ports, on."""
        known = self.sets.get(name)
        taken = {other.number for key, other in self.sets.items() if key != name}
        number = known.number if known else next(n for n in range(_SETS_MAX) if n not in taken)
        return services.lay_out(
            self.site,
            broker,
            name=name,
            number=number,
            replicas=replicas,
            environment=environment,
            modules=modules,
        )
