"""Redis: holds the claims. Losing them costs speed, not correctness (the inbox is the fence), so no files."""

from pathlib import Path

import redis.asyncio

from deploy.native.site import Site
from deploy.native.supervision import Program

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


def url(site: Site, database: int = 0) -> str:
    """A redis:// URL; `database` 0..15 keeps sets of services apart."""
    return f"redis://127.0.0.1:{site.ports.redis}/{database}"


def prepare(site: Site, redis_server: Path) -> list[Program]:
    """Write the settings and say how to run it."""
    directory = site.data("redis")
    settings = directory / "redis.conf"
    settings.write_text(_SETTINGS.format(port=site.ports.redis, directory=f'"{directory}"'))
    return [Program("redis", [str(redis_server), str(settings)], stop_timeout_s=10)]


async def probe(site: Site) -> None:
    """Raise unless PING is answered."""
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url(site), socket_timeout=5, socket_connect_timeout=5
    )
    try:
        await client.ping()
    finally:
        await client.aclose()
