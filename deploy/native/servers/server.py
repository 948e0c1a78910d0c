"""What every server of the native runtime can do."""

from abc import abstractmethod
from typing import Protocol

from deploy.native.install.install import Installed
from deploy.native.program import Program
from deploy.native.site import Site
from deploy.topology import ServerName


class Server(Protocol):
    """One kind of server: how it is prepared, addressed and asked whether it is ready.

    It holds nothing of an instance: where that is, `site` says. Nodes are counted from 1; only a broker has more
    than one.
    """

    name: ServerName
    title: str
    """As a person calls it."""

    def nodes(self, _site: Site) -> int:
        """Of how many processes it consists."""
        return 1

    @abstractmethod
    def port(self, site: Site, node: int = 1) -> int:
        """Where its clients connect, on 127.0.0.1."""

    def ports(self, site: Site, node: int = 1) -> dict[str, int]:
        """Every port that the node listens on, keyed by what it is for."""
        return {self.title: self.port(site, node)}

    @abstractmethod
    def url(self, site: Site, node: int = 1) -> str:
        """Its address for clients, with the password; of a broker, that of one node."""

    @abstractmethod
    def prepare(self, site: Site, installed: Installed) -> list[Program]:
        """Make the server's data and settings and say how to run it, each node.

        Raises DeployError naming the server when it is not installed or its data cannot be made.
        """

    @abstractmethod
    async def probe(self, site: Site, node: int = 1) -> None:
        """Raise unless the server, or this node of it, does real work: a query, a queue, a stored record."""


class BrokerServer(Server, Protocol):
    """A server that carries the events."""

    def nodes(self, site: Site) -> int:
        """As many as the instance's ports are for."""
        return site.ports.nodes

    @abstractmethod
    def settings(self, site: Site) -> dict[str, str]:
        """What the services must be told to use it, as TANDEM_… variables; every node is named."""
