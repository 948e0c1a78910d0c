"""`python -m shared.jobs.archive` lists a service's archived objects; with a key it prints the lines of one.

With `--restore` it puts its rows back, those that are not there. Its settings are the service's: `make
archive` has them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database
from shared.errors import ConfigurationError, PermanentError, TandemError
from shared.jobs.archive import store
from shared.jobs.archive.lines import unpacked
from shared.outside.circuit_breaker import CircuitBreaker
from shared.outside.objects import BREAKER, Bucket, ObjectDamagedError, ObjectStore
from shared.settings import Settings

SHOWN_MAX = 1_000
_ROWS_AT_ONCE = 1_000
_FAILED = 1
_REFUSED = 78


async def lines_of(connection: AsyncConnection, objects: ObjectStore, key: str) -> list[str]:
    """The lines of an object, which is as it was stored.

    Raises `PermanentError` for a key that the table does not name, `ObjectDamagedError` for an object whose bytes
    are not what they were.
    """
    row = await store.find_object(connection, key)
    if row is None:
        raise PermanentError(f"no object of this service is called {key}")
    content = await objects.get_verified(key, row.sha256)
    try:
        lines = unpacked(content)
    except ValueError as error:
        raise ObjectDamagedError(f"{key}: {error}") from None
    if len(lines) != row.rows:
        raise ObjectDamagedError(f"{key} has {len(lines)} lines, and not {row.rows}")
    return lines


async def restore(connection: AsyncConnection, lines: Iterable[str]) -> int:
    """Put the rows of an object back, in this transaction; return how many were not there."""
    count = 0
    for table, some in groupby(lines, key=lambda line: str(json.loads(line)["table"])):
        texts = [_row_of(line) for line in some]
        for begin in range(0, len(texts), _ROWS_AT_ONCE):
            count += await store.restore_rows(connection, table, texts[begin : begin + _ROWS_AT_ONCE])
    return count


def _row_of(line: str) -> str:
    """The row as it stands there: read and written again, a number might not be the same."""
    marker = '"row" : '
    return line[line.index(marker) + len(marker) : line.rindex("}")]


async def run(settings: Settings, key: str | None, *, is_restored: bool) -> None:
    """Carry out one call and print what it found."""
    database = Database(settings, "archive")
    try:
        async with database.transaction() as connection:
            if key is None:
                for row in await store.list_objects(connection, SHOWN_MAX):
                    span = f"{row.first_at:%Y-%m-%d} to {row.last_at:%Y-%m-%d}"
                    print(f"{row.key}  {row.rows:,} rows  {row.bytes:,} bytes  {span}")
                return
            lines = await lines_of(connection, ObjectStore(Bucket.of(settings), CircuitBreaker(BREAKER)), key)
            if is_restored:
                print(f"{await restore(connection, lines):,} of {len(lines):,} rows were not there, and are now")
            else:
                print("\n".join(lines))
    finally:
        await database.close()


def main(arguments: Sequence[str]) -> int:
    """Returns 0, 1 when it could not be done, 78 for bad settings."""
    parser = argparse.ArgumentParser(prog="python -m shared.jobs.archive", description="Look into the archive.")
    parser.add_argument("key", nargs="?")
    parser.add_argument("--restore", action="store_true", help="put the rows of the object back")
    chosen = parser.parse_args(arguments)
    if chosen.restore and chosen.key is None:
        parser.error("--restore needs a key")
    try:
        asyncio.run(run(Settings.from_environment(), chosen.key, is_restored=chosen.restore))
    except TandemError as error:
        print(f"archive: {error}", file=sys.stderr)
        return _REFUSED if isinstance(error, ConfigurationError) else _FAILED
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
