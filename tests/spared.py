"""What servers and services need not do for tests: they are told to leave out what none of them can see."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from urllib.parse import unquote, urlsplit

import asyncpg
import structlog

from deploy.native import Runtime

SETTINGS = {"fsync": "off", "autovacuum_naptime": "600"}
"""Only a machine that fails shows that commits are not on the disk, and tests kill no machine, but servers: what
half-written pages are mended with stays on. And each of the tests' databases, of which there are dozens, would be
visited six times a minute."""
FEW_PARTITIONS = {"TANDEM_KAFKA_PARTITIONS": "3"}
"""Of a service on Kafka: each costs a consumer that has nothing to do some CPU, twice a second, and the services
have dozens. Whatever comes to the same servers must say the same."""
ITERATIONS = 1
"""Of hashing a password: the usual 4,096 are half of what a connection costs asyncpg (3 of 6.5 ms of CPU)."""


def spare_logs() -> None:
    """Have an exception that is logged in a process of tests printed as Python does.

    By default structlog has rich paint it, with every variable of each frame: a quarter of a second of CPU, and
    handlers of tests raise hundreds. Services say JSON, whatever was configured before.
    """
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


async def spare_postgresql(runtime: Runtime) -> None:
    """Tell a running server of the tests what it need not do."""
    dsn = urlsplit(runtime.dsn("postgres"))
    connection = await asyncpg.connect(runtime.dsn("postgres"))
    try:
        for setting, value in SETTINGS.items():
            await connection.execute(f"alter system set {setting} = {value}")
        await connection.execute("select pg_reload_conf()")
        secret = scram_secret(unquote(dsn.password or ""), os.urandom(16), ITERATIONS)
        await connection.execute(f"alter role {dsn.username} password '{secret}'")
    finally:
        await connection.close()


def scram_secret(password: str, salt: bytes, iterations: int) -> str:
    """What PostgreSQL keeps of a password in ASCII (RFC 5803), which it takes in place of the password itself."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored, server = hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")
    of_salt, of_stored, of_server = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{of_salt}${of_stored}:{of_server}"
