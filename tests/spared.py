"""What PostgreSQL need not do for tests: it is told to leave out what none of them can see."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from urllib.parse import unquote, urlsplit

import asyncpg

from deploy.native import Runtime

SETTINGS = {"fsync": "off", "autovacuum_naptime": "600"}
"""Only a machine that fails shows that commits are not on the disk, and tests kill no machine, but servers: what
half-written pages are mended with stays on. And each of the tests' databases, of which there are dozens, would be
visited six times a minute."""
ITERATIONS = 1
"""Of hashing a password: the usual 4,096 are half of what a connection costs asyncpg (3 of 6.5 ms of CPU)."""


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
