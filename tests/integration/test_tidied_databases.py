"""What a comparison has PostgreSQL do before it goes on measuring."""

from __future__ import annotations

from deploy.native import Runtime
from experiment.effects import Databases
from tests.integration.databases import migrated_database

_WRITE = """
insert into scratch select n, repeat('x', 200) from generate_series(1, 2000) n;
delete from scratch where n % 2 = 0;
"""


async def test_tidied_databases_have_nothing_left_to_vacuum_or_to_write(servers: Runtime) -> None:
    dsn = await migrated_database(servers, "notification")
    async with Databases({"notification": dsn}) as databases:
        await databases.execute("notification", "create table scratch (n int, said text)")
        await databases.execute("notification", _WRITE)
        [written] = await databases.rows("notification", "select pg_current_wal_lsn() as position")

        await databases.tidy()

        [table] = await databases.rows(
            "notification",
            "select reltuples, relpages, relallvisible from pg_class where relname = 'scratch'",
        )
        [checkpoint] = await databases.rows(
            "notification", "select redo_lsn >= $1 as covers from pg_control_checkpoint()", written["position"]
        )
    assert table["reltuples"] == 1000
    assert table["relallvisible"] == table["relpages"] > 0
    assert checkpoint["covers"]
