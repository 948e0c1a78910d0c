"""`python -m shared.migrate <service>`: bring a service's database to its newest schema.

Reads TANDEM_POSTGRES_DSN, prints one line, exits with 0; or prints one sentence why not and exits with 1.
Replicas may run it at once: they take turns under an advisory lock, and whoever comes second finds nothing to do.
`python -m shared.migrate <service> --new "add a column"` writes an empty next version instead.
`--within examples` names the folder that holds the service's own, where it is not `services`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.database import database_errors, network_errors
from shared.errors import ConfigurationError, TandemError
from shared.setting_names import require_known
from shared.settings import Settings

_ROOT = Path(__file__).resolve().parent.parent
_SERVICES = "services"
_ADVISORY_LOCK = 0x7461_6E64_656D  # "tandem"; any constant that nothing else in these databases uses
_CONNECT_TIMEOUT_S = 15.0
_TIMEOUT_S = 300.0


class MigrationError(TandemError):
    """A database is not at its newest schema; the message is one sentence why."""


def configuration(service: str, within: str = _SERVICES) -> Config:
    """Alembic's configuration for one service, whose folder is in the folder `within` of this repository.

    Raises `ConfigurationError` if it has no migrations.
    """
    versions = _ROOT / within / service / "migrations"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", service) or not versions.is_dir():
        raise ConfigurationError(f"there is no service {service!r} with migrations")
    config = Config()
    # ConfigParser would read a % in a path as the start of a variable.
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", str(_ROOT / "shared" / "migrations").replace("%", "%%"))
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    return config


async def bring_up_to_date(service: str, dsn: str, within: str = _SERVICES) -> str:
    """Upgrade to the newest version; return one line that says what was done. Raises `MigrationError`."""
    try:
        before, after = await migrate(service, dsn, within)
    except (TandemError, CommandError, SQLAlchemyError) as error:
        # What PostgreSQL itself said, without the statement and the links that SQLAlchemy wraps it in.
        said = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else None
        reason = " ".join(str(said or error).split())
        raise MigrationError(f"cannot migrate the database of {service}: {reason}") from error
    done = "already there" if before == after else f"was {before or 'empty'}"
    return f"{service}: schema {after}, {done}"


async def migrate(service: str, dsn: str, within: str = _SERVICES) -> tuple[str | None, str | None]:
    """Upgrade to the newest version; return the version before and after.

    Everything happens in one transaction: a migration that fails leaves the schema as it was.
    Raises `ConfigurationError` for an unusable DSN, `UnavailableError` when the database cannot be reached.
    """
    config = configuration(service, within)
    if not dsn:
        raise ConfigurationError("TANDEM_POSTGRES_DSN must be set")
    if not dsn.startswith("postgresql://"):
        raise ConfigurationError("TANDEM_POSTGRES_DSN is not a postgresql:// URL")
    try:
        engine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
            poolclass=NullPool,
            connect_args={"timeout": _CONNECT_TIMEOUT_S, "command_timeout": _TIMEOUT_S},
        )
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(f"TANDEM_POSTGRES_DSN cannot be read: {error}") from error
    try:
        with network_errors(), database_errors():
            async with engine.begin() as connection:
                await connection.execute(text(f"select pg_advisory_xact_lock({_ADVISORY_LOCK})"))
                return await connection.run_sync(_upgrade, config)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, config: Config) -> tuple[str | None, str | None]:
    before = MigrationContext.configure(connection).get_current_revision()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return before, ScriptDirectory.from_config(config).get_current_head()


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shared.migrate", description="Migrate a service's database.")
    parser.add_argument("service")
    parser.add_argument("--within", metavar="FOLDER", default=_SERVICES, help="holds the service's folder")
    parser.add_argument("--new", metavar="WHAT", help="write an empty next version, named after what it will do")
    options = parser.parse_args(arguments)
    try:
        require_known(os.environ, Settings.model_fields)
        if options.new:
            _write_next_version(options.service, options.within, options.new)
            return 0
        dsn = os.environ.get("TANDEM_POSTGRES_DSN", "")
        print(asyncio.run(bring_up_to_date(options.service, dsn, options.within)))
    except (TandemError, CommandError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _write_next_version(service: str, within: str, what: str) -> None:
    config = configuration(service, within)
    head = ScriptDirectory.from_config(config).get_current_head()
    number = f"{int(head or 0) + 1:04d}"
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    written = command.revision(config, what, rev_id=number, head=head or "base")
    print(getattr(written, "path", written))


if __name__ == "__main__":
    raise SystemExit(main())
