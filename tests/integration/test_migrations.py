"""Migrations lead to the schema that the code expects, also when replicas run them at once."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from deploy.native import Runtime
from services.dead_letter.store.tables import metadata as dead_letter_metadata
from services.fraud.store import metadata as fraud_metadata
from services.notification.store import metadata as notification_metadata
from services.order.store import metadata as order_metadata
from services.report.store import metadata as report_metadata
from services.user.store import metadata as user_metadata
from services.wallet.store.tables import metadata as wallet_metadata
from shared.consuming.inbox import metadata as inbox_metadata
from shared.http.idempotency import metadata as idempotency_metadata
from shared.migrate import configuration, main, migrate
from shared.publishing.outbox import metadata as outbox_metadata

T = TypeVar("T")

EXPECTED: dict[str, tuple[MetaData, ...]] = {
    "user": (user_metadata, outbox_metadata, idempotency_metadata),
    "order": (order_metadata, outbox_metadata, inbox_metadata, idempotency_metadata),
    "dead_letter": (dead_letter_metadata, idempotency_metadata),
    "notification": (notification_metadata, inbox_metadata, idempotency_metadata),
    "report": (report_metadata, inbox_metadata, idempotency_metadata),
    "fraud": (fraud_metadata, outbox_metadata, inbox_metadata, idempotency_metadata),
    "wallet": (wallet_metadata, outbox_metadata, inbox_metadata, idempotency_metadata),
}


@pytest.fixture
def dsn(servers: Runtime) -> str:
    """A new, empty database."""
    name = f"migrate_{uuid4().hex[:10]}"
    servers.ensure_databases([name])
    return servers.dsn(name)


async def on_database(dsn: str, work: Callable[[Connection], T]) -> T:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def run(service: str, dsn: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TANDEM_POSTGRES_DSN": dsn}
    command_line = [sys.executable, "-m", "shared.migrate", service]
    return subprocess.run(command_line, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command in this process, which is to fail with one sentence; returns that.

    A process of its own would spend 1.6 s on imports each time; another test starts one.
    """

    def told(service: str, dsn: str | None) -> str:
        if dsn is None:
            monkeypatch.delenv("TANDEM_POSTGRES_DSN", raising=False)
        else:
            monkeypatch.setenv("TANDEM_POSTGRES_DSN", dsn)
        assert main([service]) == 1
        output, sentence = capsys.readouterr()
        assert (output, sentence.count("\n")) == ("", 1)
        return sentence

    return told


def is_compared(name: str | None, kind: str, _parents: object) -> bool:
    """The tables of jobs are not: their indexes stand in the migrations alone."""
    return not (kind == "table" and name is not None and re.match("(job|archive)(_|$)", name))


@pytest.mark.parametrize("service", sorted(EXPECTED))
async def test_the_migrated_schema_is_the_one_that_the_code_expects(service: str, dsn: str) -> None:
    await migrate(service, dsn)
    expected = MetaData()
    for metadata in EXPECTED[service]:
        for table in metadata.tables.values():
            table.to_metadata(expected)

    def differences(connection: Connection) -> list[object]:
        options = {"compare_server_default": True, "include_name": is_compared}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), expected))

    assert await on_database(dsn, differences) == []


async def test_the_comparison_would_notice_a_difference(dsn: str) -> None:
    await migrate("user", dsn)
    await on_database(
        dsn, lambda connection: connection.execute(text("alter table outbox alter type drop not null"))
    )

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), outbox_metadata))

    assert any("modify_nullable" in str(difference) for difference in await on_database(dsn, differences))


@pytest.mark.parametrize("service", sorted(EXPECTED))
async def test_every_migration_can_be_taken_back(service: str, dsn: str) -> None:
    await migrate(service, dsn)

    def take_back(connection: Connection) -> list[str]:
        config = configuration(service)
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        query = "select table_name from information_schema.tables where table_schema = 'public'"
        return [row.table_name for row in connection.execute(text(query))]

    assert await on_database(dsn, take_back) == ["alembic_version"]


async def test_replicas_may_migrate_at_once(dsn: str) -> None:
    befores = sorted(str(before) for before, _ in await asyncio.gather(*(migrate("order", dsn) for _ in range(5))))
    assert befores == ["0003"] * 4 + ["None"]


async def test_the_outbox_is_vacuumed_like_a_queue(dsn: str) -> None:
    await migrate("user", dsn)

    def options(connection: Connection) -> list[str]:
        return list(
            connection.execute(text("select reloptions from pg_class where relname = 'outbox'")).scalar_one()
        )

    assert "autovacuum_vacuum_scale_factor=0" in await on_database(dsn, options)


def test_the_command_says_what_it_did_in_one_line(dsn: str) -> None:
    first, second = run("notification", dsn), run("notification", dsn)
    assert (first.returncode, first.stdout, first.stderr) == (0, "notification: schema 0004, was empty\n", "")
    assert (second.returncode, second.stdout) == (0, "notification: schema 0004, already there\n")


@pytest.mark.parametrize(
    ("service", "bad_dsn", "reason"),
    [
        ("user", None, "TANDEM_POSTGRES_DSN must be set"),
        ("user", "nonsense", "not a postgresql:// URL"),
        ("user", "mysql://x@127.0.0.1/y", "not a postgresql:// URL"),
        ("user", "sqlite://", "not a postgresql:// URL"),
        ("user", "postgresql://nobody@127.0.0.1:port/user", "cannot be read"),
        ("user", "postgresql://nobody@127.0.0.1:1/user", "PostgreSQL"),
        ("nothing", "postgresql://nobody@127.0.0.1:1/user", "no service 'nothing'"),
        ("../shared", "postgresql://nobody@127.0.0.1:1/user", "no service"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    told: Callable[..., str], service: str, bad_dsn: str | None, reason: str
) -> None:
    assert reason in told(service, bad_dsn)


def test_an_unknown_setting_is_refused_before_anything_is_migrated(
    dsn: str, monkeypatch: pytest.MonkeyPatch, told: Callable[..., str]
) -> None:
    monkeypatch.setenv("TANDEM_BATCHMAX", "5")
    assert "did you mean TANDEM_BATCH_MAX?" in told("user", dsn)


def test_a_missing_database_or_a_wrong_password_is_one_sentence(
    servers: Runtime, told: Callable[..., str]
) -> None:
    assert 'database "nothing_here" does not exist' in told("user", servers.dsn("nothing_here"))
    refused = told("user", servers.dsn("postgres").replace("://tandem:", "://tandem:wrong"))
    assert "password authentication failed" in refused
