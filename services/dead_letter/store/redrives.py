"""Redrives that people ask for: which letters, how fast, how far."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.dead_letter.domain import OPEN, Redrive
from services.dead_letter.store.letters import taken
from services.dead_letter.store.listing import Filter
from services.dead_letter.store.rows import Stored
from services.dead_letter.store.tables import dead_letter, redrive


async def ask(
    connection: AsyncConnection, wanted: Filter, redrive_id: UUID, letters_max: int, *, dry_run: bool
) -> dict[str, dict[str, int]]:
    """Mark up to `letters_max` open, whole letters for a redrive, oldest first; how many of which state and
    fingerprint. A dry run marks none."""
    columns = dead_letter.c
    open_ones = columns.state.in_(sorted(OPEN)), columns.whole.is_(True), columns.asked.is_(False)
    chosen = select(columns.sequence).where(*wanted.conditions(), *open_ones).order_by(columns.sequence)
    chosen = chosen.limit(letters_max)
    statement: Any
    if dry_run:
        statement = select(columns.state, columns.fingerprint).where(columns.sequence.in_(chosen))
    else:
        statement = update(dead_letter).where(columns.sequence.in_(chosen.with_for_update()))
        statement = statement.values(asked=True, redrive_id=redrive_id)
        statement = statement.returning(columns.state, columns.fingerprint)
    counts: dict[str, dict[str, int]] = {"states": {}, "fingerprints": {}}
    for state, fingerprint in (await connection.execute(statement)).all():
        counts["states"][state] = counts["states"].get(state, 0) + 1
        counts["fingerprints"][fingerprint] = counts["fingerprints"].get(fingerprint, 0) + 1
    return counts


MARK_ASKED = (
    update(dead_letter)
    .where(dead_letter.c.id == bindparam("letter_id"))
    .values(asked=True, redrive_id=bindparam("for_redrive"))
)
INSERT_REDRIVE = insert(redrive)
NEXT_OF_REDRIVE = (
    update(redrive).where(redrive.c.id == bindparam("of_redrive")).values(next_at=bindparam("then_at"))
)


async def take_redrive(connection: AsyncConnection, now: datetime) -> Redrive | None:
    """A redrive whose next letters are due and that no other replica has in hand; None where there is none."""
    statement = (
        select(redrive)
        .where(redrive.c.next_at <= now)
        .order_by(redrive.c.next_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else Redrive(**row)


async def find_redrive(connection: AsyncConnection, redrive_id: UUID) -> Redrive | None:
    row = (await connection.execute(select(redrive).where(redrive.c.id == redrive_id))).mappings().first()
    return None if row is None else Redrive(**row)


async def progress_of(connection: AsyncConnection, redrive_id: UUID) -> tuple[int, dict[str, int]]:
    """How many letters of a redrive still wait for it, and how many others are in which state."""
    columns = dead_letter.c
    statement = (
        select(columns.asked, columns.state, func.count())
        .where(columns.redrive_id == redrive_id)
        .group_by(columns.asked, columns.state)
    )
    waiting, states = 0, dict[str, int]()
    for asked, state, count in (await connection.execute(statement)).all():
        if asked:
            waiting += count
        else:
            states[state] = states.get(state, 0) + count
    return waiting, states


async def take_asked(connection: AsyncConnection, redrive_id: UUID, batch_max: int) -> list[Stored]:
    """The next letters of a redrive, oldest first."""
    columns = dead_letter.c
    found = select(dead_letter).where(
        columns.redrive_id == redrive_id,
        columns.asked.is_(True),
        columns.state.in_(sorted(OPEN)),
    )
    return await taken(connection, found.order_by(columns.sequence), batch_max)
