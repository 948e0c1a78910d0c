"""The tables of dead letters, of redrives that people asked for, and of alerts. Nothing here commits.

Longer than most files: it holds every question that is asked of one table, and they share its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.dead_letter.domain import OPEN, Cause, Letter, LetterKind, Redrive, State
from services.dead_letter.events import Received, sent_to_json

metadata = MetaData()

PORTION_BYTES_MAX = 16 * 1024 * 1024
"""Of messages that are in memory at once to be given back: as many as a consumer of them holds."""

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("sequence", BigInteger, Identity(), nullable=False, unique=True),
    Column("id", Uuid, primary_key=True),
    Column("subscriber", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    # `sent_to_json`; null where an earlier version kept the letter. No jsonb, which has no NUL and other numbers.
    Column("sent", JSON(none_as_null=True)),
    Column("key", Text),
    Column("source", Text),
    Column("event_id", Text),
    Column("type", Text),
    Column("whole", Boolean, nullable=False),
    Column("kind", Text, nullable=False),
    Column("error_type", Text, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("error_stack", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("delays", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("redrives", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", DateTime(timezone=True)),
    Column("first_seen_at", DateTime(timezone=True), nullable=False),
    Column("last_seen_at", DateTime(timezone=True), nullable=False),
    Column("reason", Text),
    # Of a redrive that somebody asked for: which, and whether it has not come to this letter yet.
    Column("redrive_id", Uuid),
    Column("asked", Boolean, nullable=False),
    CheckConstraint(
        "state in ('pending', 'redriven', 'resolved', 'parked', 'discarded')", name="dead_letter_state"
    ),
    CheckConstraint("kind in ('failed', 'delayed')", name="dead_letter_kind"),
)
_WITHOUT_MESSAGE = [column for column in dead_letter.c if column.name not in ("body", "headers", "sent")]
Index(
    "ix_dead_letter_due_at",
    dead_letter.c.due_at,
    postgresql_where=dead_letter.c.state.in_([State.PENDING.value, State.REDRIVEN.value]),
)
Index("ix_dead_letter_fingerprint_sequence", dead_letter.c.fingerprint, dead_letter.c.sequence)
Index("ix_dead_letter_state_kind", dead_letter.c.state, dead_letter.c.kind)
Index("ix_dead_letter_redrive_id", dead_letter.c.redrive_id, dead_letter.c.asked)

redrive = Table(
    "redrive",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("rate_per_s", Float, nullable=False),
    Column("requested", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    # Its next letters are due; null when it has come to all of them.
    Column("next_at", DateTime(timezone=True), index=True),
)

alert = Table(
    "alert",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("raised_at", DateTime(timezone=True), nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A letter as lists show it: without its message, of which a page could hold gigabytes."""

    sequence: int
    letter: Letter
    subscriber: str
    channel: str
    key: str | None
    source: str | None
    event_id: str | None
    type: str | None
    redrive_id: UUID | None

    def flat(self) -> dict[str, Any]:
        """Everything by its own name, that of the letter and of its cause as well."""
        parts = (self.letter.cause, self.letter, self)
        return {field.name: getattr(part, field.name) for part in parts for field in fields(part)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Listed):
    """A letter with everything that was kept of its message."""

    body: bytes
    headers: dict[str, str]
    sent: dict[str, Any] | None
    """`sent_to_json`."""


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


async def read_clock(connection: AsyncConnection) -> datetime:
    """When this transaction began. Every time that is kept is PostgreSQL's: what is due by one process's
    clock, which may be wrong, is due too early or hours too late for the next one."""
    now: datetime = (await connection.execute(select(func.now()))).scalar_one()
    return now


# -- letters as they come


async def insert_new(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Insert those whose id is not there yet, in the order given, which is that of redrives; return these.

    Two replicas that are handed the same letters at once may deadlock here: one of them comes again."""
    if not rows:
        return set()
    statement = insert(dead_letter).values(list(rows)).on_conflict_do_nothing().returning(dead_letter.c.id)
    return set((await connection.execute(statement)).scalars())


def new_row(received: Received, letter: Letter) -> dict[str, Any]:
    """The row of a letter that was not known before."""
    return {
        **_changing(letter),
        "id": letter.id,
        "subscriber": received.subscription.subscriber,
        "channel": received.subscription.channel,
        "body": received.body,
        "headers": received.headers,
        "sent": sent_to_json(received.sent),
        "key": received.key,
        "source": received.source,
        "event_id": received.event_id,
        "type": received.type,
        "whole": letter.whole,
        "first_seen_at": letter.first_seen_at,
    }


_OF_CAUSE = ("error_type", "error_message", "error_stack", "fingerprint", "attempts", "delays")
_OF_LETTER = ("redrives", "tries", "due_at", "last_seen_at", "asked", "reason")
CHANGE_LETTER = (
    update(dead_letter)
    .where(dead_letter.c.id == bindparam("letter_id"))
    .values({name: bindparam(f"new_{name}") for name in ("kind", "state", *_OF_CAUSE, *_OF_LETTER)})
)


def changed(letter: Letter) -> dict[str, Any]:
    """The row for `CHANGE_LETTER`."""
    return {"letter_id": letter.id, **{f"new_{name}": value for name, value in _changing(letter).items()}}


def _changing(letter: Letter) -> dict[str, Any]:
    return {
        "kind": letter.cause.kind.value,
        "state": letter.state.value,
        **{name: getattr(letter.cause, name) for name in _OF_CAUSE},
        **{name: getattr(letter, name) for name in _OF_LETTER},
    }


async def lock_letters(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Letter]:
    """These letters, locked in the ids' order; nobody else changes them until the transaction ends."""
    statement = select(*_WITHOUT_MESSAGE).where(dead_letter.c.id.in_(ids)).order_by(dead_letter.c.id)
    statement = statement.with_for_update()
    return {row["id"]: _letter(row) for row in (await connection.execute(statement)).mappings()}


async def find_letter(connection: AsyncConnection, letter_id: UUID, *, lock: bool = False) -> Stored | None:
    statement = select(dead_letter).where(dead_letter.c.id == letter_id)
    row = (await connection.execute(statement.with_for_update() if lock else statement)).mappings().first()
    return None if row is None else _stored(row)


# -- letters to give back; `skip locked`, so that replicas take different ones


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
    return await _taken(connection, found.order_by(columns.due_at), batch_max)


async def take_asked(connection: AsyncConnection, redrive_id: UUID, batch_max: int) -> list[Stored]:
    """The next letters of a redrive, oldest first."""
    columns = dead_letter.c
    found = select(dead_letter).where(
        columns.redrive_id == redrive_id,
        columns.asked.is_(True),
        columns.state.in_(sorted(OPEN)),
    )
    return await _taken(connection, found.order_by(columns.sequence), batch_max)


async def _taken(connection: AsyncConnection, found: Select[Any], batch_max: int) -> list[Stored]:
    """Messages are loaded once it is known how large they are: `PORTION_BYTES_MAX`, or one that is larger."""
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
    stored = {row["id"]: _stored(row) for row in rows}
    return [stored[letter_id] for letter_id in taken]


# -- redrives that people ask for


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


# -- looking


async def list_letters(
    connection: AsyncConnection, wanted: Filter, before: int | None, page_size: int
) -> list[Listed]:
    """The letters that the filter finds, newest first, beginning after sequence number `before`."""
    statement = select(*_WITHOUT_MESSAGE).where(*wanted.conditions())
    if before is not None:
        statement = statement.where(dead_letter.c.sequence < before)
    statement = statement.order_by(dead_letter.c.sequence.desc()).limit(page_size)
    return [Listed(**_listed(row)) for row in (await connection.execute(statement)).mappings()]


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


# -- housekeeping


async def raise_alerts(
    connection: AsyncConnection, fingerprints: Sequence[str], now: datetime, quiet_since: datetime
) -> set[str]:
    """Note that these are alerted now; return those that had been quiet since `quiet_since`."""
    if not fingerprints:
        return set()
    rows = [{"fingerprint": fingerprint, "raised_at": now} for fingerprint in sorted(set(fingerprints))]
    new = insert(alert).values(rows)
    statement = new.on_conflict_do_update(
        index_elements=[alert.c.fingerprint],
        set_={"raised_at": new.excluded.raised_at},
        where=alert.c.raised_at < quiet_since,
    ).returning(alert.c.fingerprint)
    return set((await connection.execute(statement)).scalars())


async def prune(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget up to `rows_max` letters that are resolved or discarded and were last seen before `before`, and the
    redrives and alerts of that time; return how many letters."""
    columns, finished = dead_letter.c, [State.RESOLVED, State.DISCARDED]
    old = select(columns.sequence).where(columns.state.in_(finished), columns.last_seen_at < before)
    await connection.execute(delete(redrive).where(redrive.c.next_at.is_(None), redrive.c.started_at < before))
    await connection.execute(delete(alert).where(alert.c.raised_at < before))
    result = await connection.execute(delete(dead_letter).where(columns.sequence.in_(old.limit(rows_max))))
    return result.rowcount


# -- rows


def _letter(row: Mapping[Any, Any]) -> Letter:
    cause = Cause(kind=LetterKind(row["kind"]), due_at=row["due_at"], **{name: row[name] for name in _OF_CAUSE})
    names = ("id", "whole", "first_seen_at", *_OF_LETTER)
    return Letter(state=State(row["state"]), cause=cause, **{name: row[name] for name in names})


def _listed(row: Mapping[Any, Any]) -> dict[str, Any]:
    names = ("sequence", "subscriber", "channel", "key", "source", "event_id", "type", "redrive_id")
    return {"letter": _letter(row), **{name: row[name] for name in names}}


def _stored(row: Mapping[Any, Any]) -> Stored:
    return Stored(body=row["body"], headers=row["headers"], sent=row["sent"], **_listed(row))
