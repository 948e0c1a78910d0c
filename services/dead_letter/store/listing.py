"""What is looked at: letters by a filter, in groups, counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.dead_letter.domain import State
from services.dead_letter.store.rows import Listed, listed_of
from services.dead_letter.store.tables import WITHOUT_MESSAGE, dead_letter


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which letters; what is None does not matter. `seen_from` and `seen_to` bound when they came first."""

    states: frozenset[State] = frozenset()
    subscriber: str | None = None
    channel: str | None = None
    type: str | None = None
    fingerprint: str | None = None
    error_type: str | None = None
    seen_from: datetime | None = None
    seen_to: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        columns = dead_letter.c
        equal = {
            columns.subscriber: self.subscriber,
            columns.channel: self.channel,
            columns.type: self.type,
            columns.fingerprint: self.fingerprint,
            columns.error_type: self.error_type,
        }
        found = [column == value for column, value in equal.items() if value is not None]
        if self.states:
            found.append(columns.state.in_(sorted(self.states)))
        if self.seen_from is not None:
            found.append(columns.first_seen_at >= self.seen_from)
        if self.seen_to is not None:
            found.append(columns.first_seen_at < self.seen_to)
        return found


async def list_letters(
    connection: AsyncConnection, wanted: Filter, before: int | None, page_size: int
) -> list[Listed]:
    """The letters that the filter finds, newest first, beginning after sequence number `before`."""
    statement = select(*WITHOUT_MESSAGE).where(*wanted.conditions())
    if before is not None:
        statement = statement.where(dead_letter.c.sequence < before)
    statement = statement.order_by(dead_letter.c.sequence.desc()).limit(page_size)
    return [Listed(**listed_of(row)) for row in (await connection.execute(statement)).mappings()]


async def list_groups(connection: AsyncConnection, wanted: Filter, groups_max: int) -> list[dict[str, Any]]:
    """Letters by fingerprint, the largest groups first; `sample_id`, message and type are of the newest one."""
    columns = dead_letter.c
    count = func.count()
    groups = (
        select(
            columns.fingerprint,
            count.label("count"),
            func.max(columns.sequence).label("newest"),
            func.min(columns.first_seen_at).label("first_seen_at"),
            func.max(columns.last_seen_at).label("last_seen_at"),
            *(count.filter(columns.state == state.value).label(f"count_{state.value}") for state in State),
        )
        .where(*wanted.conditions())
        .group_by(columns.fingerprint)
        .order_by(count.desc(), columns.fingerprint)
        .limit(groups_max)
        .subquery()
    )
    sample = dead_letter.alias()
    of_sample = (sample.c[name] for name in ("subscriber", "channel", "type", "error_type", "error_message"))
    statement = (
        select(groups, *of_sample, sample.c.id.label("sample_id"))
        .join(sample, sample.c.sequence == groups.c.newest)
        .order_by(groups.c["count"].desc(), groups.c.fingerprint)
    )
    return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def count_letters(connection: AsyncConnection) -> dict[tuple[str, str], int]:
    """How many letters there are, by state and kind."""
    columns = dead_letter.c
    statement = select(columns.state, columns.kind, func.count()).group_by(columns.state, columns.kind)
    return {(state, kind): count for state, kind, count in (await connection.execute(statement)).all()}
