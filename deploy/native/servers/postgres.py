"""PostgreSQL: one server, a database per service, durable commits."""

import os
import pwd
import subprocess
from pathlib import Path
from urllib.parse import quote

import asyncpg

from deploy.errors import StartError
from deploy.native.environment import UMASK, of_children
from deploy.native.install.install import Installed, require_installed
from deploy.native.install.system import is_root, last_lines
from deploy.native.program import Program
from deploy.native.servers.server import Server
from deploy.native.site import Site
from deploy.topology import ServerName

ROLE = "tandem"
_INITDB_TIMEOUT_S = 60

# Durable first: a commit is on disk when it returns. The rest fits a small machine and tables that are filled and
# emptied all the time (outbox, inbox).
_SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
password_encryption = 'scram-sha-256'
fsync = on
synchronous_commit = on
full_page_writes = on
track_commit_timestamp = on
shared_buffers = 256MB
max_wal_size = 2GB
checkpoint_timeout = 10min
autovacuum = on
autovacuum_naptime = 10s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.05
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
log_destination = 'stderr'
log_line_prefix = '%m [%p] %d '
"""


class PostgreSQL(Server):
    """One PostgreSQL server; its data is a cluster of databases."""

    name: ServerName = "postgres"
    title = "PostgreSQL"

    def port(self, site: Site, _node: int = 1) -> int:
        """As the instance's ports say."""
        return site.ports.postgres

    def url(self, site: Site, _node: int = 1) -> str:
        """A postgresql:// URL of the database that is always there."""
        return dsn(site, "postgres")

    def prepare(self, site: Site, installed: Installed) -> list[Program]:
        """Make the cluster if there is none yet, write its settings and say how to run it.

        Raises StartError when initdb fails or the data is of another major version.
        """
        postgres_bin = require_installed(installed.postgres_bin, self.title)
        account = "postgres" if is_root() else None
        cluster = site.data("postgres", owner=account) / "cluster"
        if not cluster.exists():
            _initdb(cluster, site, postgres_bin, account)
        _check_version(cluster, postgres_bin)
        settings = cluster / "postgresql.conf"
        settings.write_text(_SETTINGS.format(port=site.ports.postgres))
        _give(settings, account)
        # Leftover of a killed server; supervision has made sure that it is gone.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        return [
            Program(
                "postgres",
                [str(postgres_bin / "postgres"), "-D", str(cluster)],
                directory=cluster,
                user=account,
                stop_signal="INT",  # the "fast" shutdown: ends sessions, then writes a checkpoint
                stop_timeout_s=90,  # killed in its checkpoint it would leave children that hold off its successor
                die_with_supervisor="INT",
            )
        ]

    async def probe(self, site: Site, _node: int = 1) -> None:
        """Raise unless a query is answered."""
        connection = await asyncpg.connect(dsn(site, "postgres"), timeout=5)
        try:
            await connection.fetchval("SELECT 1", timeout=5)
        finally:
            await connection.close(timeout=5)


def dsn(site: Site, database: str) -> str:
    """A postgresql:// URL with the password."""
    return f"postgresql://{ROLE}:{quote(site.password)}@127.0.0.1:{site.ports.postgres}/{database}"


async def create_database(site: Site, name: str) -> None:
    """Create a database unless it exists."""
    connection = await asyncpg.connect(dsn(site, "postgres"), timeout=10)
    try:
        if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name) is None:
            quoted = '"' + name.replace('"', '""') + '"'
            await connection.execute(f"CREATE DATABASE {quoted}", timeout=60)
    except asyncpg.DuplicateDatabaseError:
        return
    finally:
        await connection.close(timeout=5)


async def schema_version(site: Site, database: str) -> str | None:
    """The version that migrations left a database at; None when none has run, or when it cannot be asked: who then
    migrates it says why."""
    try:
        connection = await asyncpg.connect(dsn(site, database), timeout=10)
        try:
            version: str | None = await connection.fetchval("SELECT version_num FROM alembic_version", timeout=10)
        finally:
            await connection.close(timeout=5)
    except (asyncpg.PostgresError, OSError, TimeoutError):
        return None
    return version


def _initdb(cluster: Path, site: Site, postgres_bin: Path, account: str | None) -> None:
    fresh = cluster.with_name("cluster.new")
    as_account = ["runuser", "-u", account, "--"] if account else []
    subprocess.run([*as_account, "rm", "-rf", str(fresh)], env=of_children(), check=False)
    password = cluster.with_name("password")  # initdb takes it from a file only
    password.touch(mode=0o600)
    password.write_text(site.password + "\n")
    _give(password, account)
    options = ["--username", ROLE, "--pwfile", str(password), "--auth", "scram-sha-256", "--encoding", "UTF8"]
    try:
        done = subprocess.run(
            [*as_account, str(postgres_bin / "initdb"), "-D", str(fresh), *options, "--locale", "C.UTF-8"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=of_children(),
            umask=UMASK,
            text=True,
            check=False,
            timeout=_INITDB_TIMEOUT_S,
            cwd="/",
        )
    except subprocess.TimeoutExpired as error:
        raise StartError(f"PostgreSQL's initdb took longer than {_INITDB_TIMEOUT_S} s") from error
    finally:
        password.unlink()
    if done.returncode != 0:
        raise StartError(f"PostgreSQL's initdb failed in {fresh}:\n{last_lines(done.stdout)}")
    fresh.rename(cluster)  # only a whole cluster gets the name that the next start looks for


def _give(path: Path, account: str | None) -> None:
    if account:
        owner = pwd.getpwnam(account)
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _check_version(cluster: Path, postgres_bin: Path) -> None:
    have = (cluster / "PG_VERSION").read_text().strip()
    done = subprocess.run(
        [str(postgres_bin / "postgres"), "--version"],
        env=of_children(),
        capture_output=True,
        text=True,
        check=True,
    )
    runs = done.stdout.split()[2].split(".")[0]
    if have != runs:
        raise StartError(f"the data in {cluster} is of PostgreSQL {have}, but {runs} is installed: remove it")
