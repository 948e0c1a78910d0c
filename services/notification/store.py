"""The tables of notifications and of recipients, and their statements. Nothing here commits.

Those of jobs, which the archive is, stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.jobs.archive import Lines, Portion, recording

metadata = MetaData()

notification = Table(
    "notification",
    metadata,
    Column("sequence", BigInteger, Identity(), primary_key=True),
    Column("id", Uuid, nullable=False),
    Column("event_source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("order_id", Uuid),
    Column("version", Integer, nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    # When the row was written, not when its batch's transaction began.
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("event_source", "event_id"),
    Index("ix_notification_user_id_sequence", "user_id", "sequence"),
    Index(
        "ix_notification_order_id_sequence",
        "order_id",
        "sequence",
        postgresql_where=text("order_id is not null"),
    ),
)

recipient = Table(
    "recipient",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
)

INSERT_NOTIFICATION = insert(notification)

_new = postgresql.insert(recipient)
# Events may arrive twice, late, or before the registration: whatever is newest wins.
RECORD_RECIPIENT = _new.on_conflict_do_update(
    index_elements=[recipient.c.user_id],
    set_={name: _new.excluded[name] for name in ("email", "name", "version")},
    where=recipient.c.version < _new.excluded.version,
)
_FIND_RECIPIENT = select(recipient.c.email, recipient.c.name).where(recipient.c.user_id == bindparam("wanted"))


@dataclass(frozen=True, slots=True)
class Recipient:
    """Where a user's mail goes, and how the user is addressed."""

    email: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One row. `version` is that of the order, user or transfer at the event."""

    sequence: int
    id: UUID
    event_source: str
    event_id: str
    event_type: str
    user_id: UUID
    order_id: UUID | None
    version: int
    title: str
    body: str
    recorded_at: datetime


async def list_notifications(
    connection: AsyncConnection, user_id: UUID | None, order_id: UUID | None, before: int | None, page_size: int
) -> list[Notification]:
    """The notifications of a user, an order or both, newest first, beginning after sequence number `before`."""
    query = select(notification).order_by(notification.c.sequence.desc()).limit(page_size)
    if user_id is not None:
        query = query.where(notification.c.user_id == user_id)
    if order_id is not None:
        query = query.where(notification.c.order_id == order_id)
    if before is not None:
        query = query.where(notification.c.sequence < before)
    result = await connection.execute(query)
    return [Notification(**row) for row in result.mappings()]


async def find_recipient(connection: AsyncConnection, user_id: UUID) -> Recipient | None:
    row = (await connection.execute(_FIND_RECIPIENT, {"wanted": user_id})).mappings().first()
    return None if row is None else Recipient(**row)


# -- the archive

ARCHIVED_AT_ONCE: Final = 5_000
"""Notifications of one archived object, at most."""

# By the primary key, from its beginning: what has grown old stands there, nearly in order, as sequence numbers are
# drawn a little before rows are written. A row that is out of order waits for the next time.
_OLDEST = text(
    """
    select sequence, recorded_at, json_build_object('table', 'notification', 'row', row_to_json(n))::text as line
      from notification n where sequence > :after order by sequence limit :count_max
    """
)
RECORD_ARCHIVED = recording(
    "gone as (delete from notification where sequence = any(cast(:sequences as bigint[])) returning sequence)"
)


async def read_old(connection: AsyncConnection, before: datetime, after: Any, lines: Lines) -> Portion | None:
    """As `shared.jobs.archive` asks a source; `after` is the last sequence number."""
    told = {"after": after or 0, "count_max": ARCHIVED_AT_ONCE}
    rows = [row for row in (await connection.execute(_OLDEST, told)).all() if row.recorded_at < before]
    if not rows:
        return None
    await lines.add([row.line for row in rows])
    moments = [row.recorded_at for row in rows]
    sequences = [row.sequence for row in rows]
    return Portion(min(moments), max(moments), sequences[-1], {"sequences": sequences})
