"""Redis: holds the claims. Losing them costs speed, not correctness (the inbox is the fence), so no files."""

import shlex

import redis.asyncio

from deploy.native.install.install import Installed, require_installed
from deploy.native.program import Program
from deploy.native.servers.server import Server
from deploy.native.site import Site
from deploy.topology import ServerName

# A claim that was evicted would be a claim that never was: refuse writes instead.
SETTINGS = """\
bind 127.0.0.1
port {port}
daemonize no
dir .
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
        """Say how to run it."""
        program = require_installed(installed.redis_server, self.title)
        # As arguments: of a settings file, Redis takes a bracket in its path for a pattern.
        lines = [shlex.split(line) for line in SETTINGS.format(port=site.ports.redis).splitlines()]
        options = [word for name, *values in lines for word in (f"--{name}", *values)]
        return [Program("redis", [str(program), *options], directory=site.data("redis"), stop_timeout_s=10)]

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
