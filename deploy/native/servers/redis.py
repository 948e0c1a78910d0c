"""Redis: holds the claims. Losing them costs speed, not correctness (the inbox is the fence), so no files."""

import redis.asyncio

from deploy.native.install.install import Installed, require_installed
from deploy.native.program import Program
from deploy.native.servers.server import Server
from deploy.native.site import Site
from deploy.topology import ServerName

# A claim that was evicted would be a claim that never was: refuse writes instead.
_SETTINGS = """\
bind 127.0.0.1
port {port}
daemonize no
dir {directory}
save ""
appendonly no
maxmemory 512mb
maxmemory-policy noeviction
databases 16
tcp-backlog 511
"""


class Redis(Server):
    """One Redis server; each set of services has a database of its own on it."""

    name: ServerName = "redis"
    title = "Redis"

    def port(self, site: Site, _node: int = 1) -> int:
        """As the instance's ports say."""
        return site.ports.redis

    def url(self, site: Site, _node: int = 1) -> str:
        """A redis:// URL of the first database."""
        return url(site)

    def prepare(self, site: Site, installed: Installed) -> list[Program]:
        """Write the settings and say how to run it."""
        program = require_installed(installed.redis_server, self.title)
        directory = site.data("redis")
        settings = directory / "redis.conf"
        settings.write_text(_SETTINGS.format(port=site.ports.redis, directory=f'"{directory}"'))
        return [Program("redis", [str(program), str(settings)], stop_timeout_s=10)]

    async def probe(self, site: Site, _node: int = 1) -> None:
        """Raise unless PING is answered."""
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            url(site), socket_timeout=5, socket_connect_timeout=5
        )
        try:
            await client.ping()
        finally:
            await client.aclose()


def url(site: Site, database: int = 0) -> str:
    """A redis:// URL; `database` 0..15 keeps sets of services apart."""
    return f"redis://127.0.0.1:{site.ports.redis}/{database}"
