"""Letters as they come, change, are due, and are forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.dead_letter.domain import Letter, LetterKind, State
from services.dead_letter.store.rows import OF_CAUSE, OF_LETTER, Stored, letter_of, stored_of
from services.dead_letter.store.tables import WITHOUT_MESSAGE, alert, dead_letter, redrive

PORTION_BYTES_MAX = 16 * 1024 * 1024
"""Of messages that are in memory at once to be given back: as many as a consumer of them holds."""


async def read_clock(connection: AsyncConnection) -> datetime:
    """When this transaction began. Every time that is kept is PostgreSQL's: what is due by one process's
    clock, which may be wrong, is due too early or hours too late for the next one."""
    now: datetime = (await connection.execute(select(func.now()))).scalar_one()
    return now


async def insert_new(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Insert those whose id is not there yet, in the order given, which is that of redrives; return these.

    Two replicas that are handed the same letters at once may deadlock here: one of them comes again."""
    if not rows:
        return set()
    statement = insert(dead_letter).values(list(rows)).on_conflict_do_nothing().returning(dead_letter.c.id)
    return set((await connection.execute(statement)).scalars())


CHANGE_LETTER = (
    update(dead_letter)
    .where(dead_letter.c.id == bindparam("letter_id"))
    .values({name: bindparam(f"new_{name}") for name in ("kind", "state", *OF_CAUSE, *OF_LETTER)})
)


async def lock_letters(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Letter]:
    """These letters, locked in the ids' order; nobody else changes them until the transaction ends."""
    statement = select(*WITHOUT_MESSAGE).where(dead_letter.c.id.in_(ids)).order_by(dead_letter.c.id)
    statement = statement.with_for_update()
    return {row["id"]: letter_of(row) for row in (await connection.execute(statement)).mappings()}


async def find_letter(connection: AsyncConnection, letter_id: UUID, *, lock: bool = False) -> Stored | None:
    statement = select(dead_letter).where(dead_letter.c.id == letter_id)
    row = (await connection.execute(statement.with_for_update() if lock else statement)).mappings().first()
    return None if row is None else stored_of(row)


async def take_due(
    connection: AsyncConnection, now: datetime, *, delayed_only: bool, batch_max: int
) -> list[Stored]:
    """Letters that are due and that no other transaction has in hand.

    Delayed ones and overdue answers, or failed ones as well.
    """
    columns = dead_letter.c
    due = or_(
        columns.state == State.REDRIVEN.value,
        and_(columns.state == State.PENDING.value, columns.kind == LetterKind.DELAYED.value)
        if delayed_only
        else columns.state == State.PENDING.value,
    )
    found = select(dead_letter).where(columns.due_at <= now, due, columns.asked.is_(False))
    return await taken(connection, found.order_by(columns.due_at), batch_max)


async def taken(connection: AsyncConnection, found: Select[Any], batch_max: int) -> list[Stored]:
    """Those found, locked; with `skip locked`, so that replicas take different ones.

    Messages are loaded once it is known how large they are: `PORTION_BYTES_MAX`, or one that is larger.
    """
    columns = dead_letter.c
    weighed = found.with_only_columns(columns.id, func.octet_length(columns.body)).limit(batch_max)
    taken: list[UUID] = []
    bytes_left = PORTION_BYTES_MAX
    for letter_id, size in (await connection.execute(weighed.with_for_update(skip_locked=True))).all():
        bytes_left -= size
        if taken and bytes_left < 0:
            break
        taken.append(letter_id)
    if not taken:
        return []
    rows = (await connection.execute(select(dead_letter).where(columns.id.in_(taken)))).mappings()
    stored = {row["id"]: stored_of(row) for row in rows}
    return [stored[letter_id] for letter_id in taken]


async def prune(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget up to `rows_max` letters that are resolved or discarded and were last seen before `before`, and the
    redrives and alerts of that time; return how many letters."""
    columns, finished = dead_letter.c, [State.RESOLVED, State.DISCARDED]
    old = select(columns.sequence).where(columns.state.in_(finished), columns.last_seen_at < before)
    await connection.execute(delete(redrive).where(redrive.c.next_at.is_(None), redrive.c.started_at < before))
    await connection.execute(delete(alert).where(alert.c.raised_at < before))
    result = await connection.execute(delete(dead_letter).where(columns.sequence.in_(old.limit(rows_max))))
    return result.rowcount
