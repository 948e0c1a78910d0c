"""The user's table and its statements. Nothing here commits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.user.domain import User, UserStatus

metadata = MetaData()

# Plural, because `user` is a reserved word in PostgreSQL.
users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("registered_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("status in ('active', 'deactivated')", name="users_status"),
)

INSERT_USER = insert(users)
UPDATE_USER = (
    update(users)
    .where(users.c.id == bindparam("user_id"))
    .values({name: bindparam(f"new_{name}") for name in ("email", "name", "status", "version", "updated_at")})
)
_FIND = select(users).where(users.c.id == bindparam("user_id"))
_FIND_AND_LOCK = _FIND.with_for_update()


def inserted(user: User) -> dict[str, Any]:
    """The row for `INSERT_USER`."""
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "status": user.status.value,
        "version": user.version,
        "registered_at": user.registered_at,
        "updated_at": user.updated_at,
    }


def changed(user: User) -> dict[str, Any]:
    """The row for `UPDATE_USER`."""
    return {
        "user_id": user.id,
        "new_email": user.email,
        "new_name": user.name,
        "new_status": user.status.value,
        "new_version": user.version,
        "new_updated_at": user.updated_at,
    }


async def find_user(connection: AsyncConnection, user_id: UUID, *, lock: bool = False) -> User | None:
    """The user; with `lock`, nobody else changes it until the transaction ends."""
    statement = _FIND_AND_LOCK if lock else _FIND
    row = (await connection.execute(statement, {"user_id": user_id})).mappings().first()
    return None if row is None else User(**{**row, "status": UserStatus(row["status"])})
