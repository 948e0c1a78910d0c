"""What PostgreSQL need not do for tests: told so, its connections and its idle hours cost next to nothing.

`python -m tests.spared COMMAND ARGUMENTS…` runs a command of ours that starts servers, and tells its PostgreSQL.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import runpy
import sys
from urllib.parse import unquote, urlsplit

import asyncpg

from deploy.native import Runtime
from deploy.native.processes import run_async

SETTINGS = {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "600"}
"""Only a machine that fails shows that commits are not on the disk, and tests kill no machine; and each of their
databases, of which there are dozens, would be visited six times a minute."""
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


def run_spared(command: str, *arguments: str) -> None:
    """What `python -m COMMAND ARGUMENTS` does, but for PostgreSQL."""
    start = Runtime.start_servers

    def start_and_tell(runtime: Runtime) -> None:
        start(runtime)
        run_async(lambda: spare_postgresql(runtime))

    setattr(Runtime, start.__name__, start_and_tell)
    sys.argv = [command, *arguments]
    runpy.run_module(command, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_spared(*sys.argv[1:])
