"""Databases for tests: a service's schema is migrated once, and copied for each test that wants its own."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg

from deploy.native import Runtime
from shared.migrate import migrate

_IS_THERE = "select 1 from pg_database where datname = $1 and datistemplate"
_IN_TURN = "select pg_advisory_lock(hashtext($1))"
_TURN_S = 60.0


async def migrated_database(servers: Runtime, service: str) -> str:
    """The DSN of a new database with the service's tables, all empty."""
    template, name = f"template_{service}", f"{service}_{uuid4().hex[:10]}"
    connection = await asyncpg.connect(servers.dsn("postgres"))
    try:
        # Workers on servers that are kept share them, and the first makes it; the lock ends with the session.
        await connection.execute(_IN_TURN, template, timeout=_TURN_S)
        if not await connection.fetchval(_IS_THERE, template):
            await asyncio.to_thread(servers.ensure_databases, [template])
            await migrate(service, servers.dsn(template))
            await connection.execute(f"alter database {template} is_template true")  # from now on it is whole
        await connection.execute(f"create database {name} template {template}")
    finally:
        await connection.close()
    return servers.dsn(name)
