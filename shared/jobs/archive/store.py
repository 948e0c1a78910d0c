"""What is written down of the archive: a row for each object. Nothing here commits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

_LIST = text("select * from archive_object order by archived_at desc, key desc limit :count_max")
_FIND = text("select * from archive_object where key = :key")
_TABLE = re.compile(r"[a-z][a-z0-9_]*")


async def list_objects(connection: AsyncConnection, count_max: int) -> Sequence[Row[Any]]:
    """The objects that were archived, newest first."""
    return (await connection.execute(_LIST, {"count_max": count_max})).all()


async def find_object(connection: AsyncConnection, key: str) -> Row[Any] | None:
    """The row of an object, if it is one of this service's."""
    return (await connection.execute(_FIND, {"key": key})).first()


async def restore_rows(connection: AsyncConnection, table: str, rows: Sequence[str]) -> int:
    """Insert rows, each JSON text of an object, into the table that they are of; return how many were not there.

    Raises `ValueError` for what is no table's name.
    """
    if not _TABLE.fullmatch(table):
        raise ValueError(f"{table!r} is no table")
    statement = text(
        f"""
        insert into "{table}"
        select (json_populate_record(null::"{table}", told.line::json)).*
          from unnest(cast(:lines as text[])) as told (line)
        on conflict do nothing
        """  # noqa: S608  the name was looked at
    )
    return (await connection.execute(statement, {"lines": list(rows)})).rowcount
