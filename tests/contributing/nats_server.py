"""In place of a server for NATS, for the test of the recipe alone: nothing is started."""

from __future__ import annotations

from deploy.native.install.install import Installed
from deploy.native.program import Program
from deploy.native.servers.server import BrokerServer
from deploy.native.site import Site
from deploy.topology import ServerName


class Nats(BrokerServer):
    """Has an address, and no process behind it."""

    name: ServerName = "nats"  # type: ignore[assignment]  # a name only where the recipe was followed
    title = "NATS"

    def port(self, site: Site, _node: int = 1) -> int:
        """The first that the instance has left over."""
        return site.ports.block + 17

    def url(self, site: Site, node: int = 1) -> str:
        """A nats:// URL."""
        return f"nats://127.0.0.1:{self.port(site, node)}"

    def settings(self, site: Site) -> dict[str, str]:
        """The URL of the one node."""
        return {"TANDEM_NATS_URL": self.url(site)}

    def prepare(self, _site: Site, _installed: Installed) -> list[Program]:
        """Nothing to prepare, and nothing to run."""
        return []

    async def probe(self, _site: Site, _node: int = 1) -> None:
        """There is nobody who could be away."""
