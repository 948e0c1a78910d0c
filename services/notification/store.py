"""The notification table and its statements. Nothing here commits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
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
    func,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

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

INSERT_NOTIFICATION = insert(notification)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One row. `version` is that of the order or user at the event."""

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
