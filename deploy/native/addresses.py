"""Where the parts of an instance answer."""

from pathlib import Path

from deploy.native.inventory import Inventory
from deploy.native.servers import mail, postgres, rabbit
from deploy.native.servers.table import server_of
from deploy.topology import SERVICES


class Addresses:
    """The URLs and places of one instance, whether it runs or not."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._site = inventory.site

    @property
    def server_processes(self) -> list[str]:
        """The names of the servers' processes: a cluster has `kafka`, `kafka-2`, `kafka-3`."""
        return self._inventory.server_processes

    def server_urls(self) -> dict[str, str]:
        """URL of every server's process, with password."""
        return {name: self._url(name) for name in self._inventory.server_processes}

    def service_urls(self, instance: str = "") -> dict[str, str]:
        """HTTP base URL of every service of a set."""
        rows = self._inventory.sets[instance].processes
        first = {row.service: row.url for row in reversed(rows)}  # each service's first process comes first
        return {service: first[service] for service in SERVICES}

    def process_urls(self, instance: str = "") -> dict[str, str]:
        """HTTP base URL of every process of a set, for health and metrics."""
        return {row.name: row.url for row in self._inventory.sets[instance].processes}

    def dsn(self, database: str) -> str:
        """postgresql:// URL of a database, with password."""
        return postgres.dsn(self._site, database)

    @property
    def maildir(self) -> Path:
        """Where the development mail server keeps what it took: a file per mail, in `new`."""
        return mail.maildir(self._site)

    @property
    def management_url(self) -> str:
        """RabbitMQ's management API; same user and password as in the AMQP URL."""
        return rabbit.management_url(self._site)

    def _url(self, process: str) -> str:
        server, node = server_of(process)
        return server.url(self._site, node)
