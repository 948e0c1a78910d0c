"""The tables of the order service and their statements. Nothing here commits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.order.domain import KnownUser, Line, Order, OrderStatus, Verdict, require_known

_REMEMBERED_MAX = 10_000

metadata = MetaData()

# Plural, because `order` is a reserved word in PostgreSQL.
orders = Table(
    "orders",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    # Part of the order and never looked at without it: one row, one insert.
    Column("lines", postgresql.JSONB, nullable=False),
    Column("total_amount", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("note", Text),
    CheckConstraint("status in ('placed', 'paid', 'cancelled')", name="orders_status"),
    Index("ix_orders_user_id_id", "user_id", "id"),
)

known_user = Table(
    "known_user",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("active", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("traceparent", Text),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

# Apart from `orders`, which the order's own changes lock.
order_verdict = Table(
    "order_verdict",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("verdict", Text, nullable=False),
    CheckConstraint("verdict in ('approve', 'review', 'reject')", name="order_verdict_verdict"),
)

INSERT_ORDER = insert(orders)
_as_it_was_read = (
    select(known_user.c.user_id)
    .where(
        known_user.c.user_id == bindparam("new_user_id"),
        known_user.c.version == bindparam("user_version"),
        known_user.c.active,
    )
    .scalar_subquery()
)
_new_order = {column.name: bindparam(f"new_{column.name}", type_=column.type) for column in orders.c}
# Nobody's order where the user is not any more what was read: then it is refused, and with it the order's event.
INSERT_ORDER_OF_USER = insert(orders).values({**_new_order, "user_id": _as_it_was_read})
UPDATE_ORDER = (
    update(orders)
    .where(orders.c.id == bindparam("order_id"))
    .values({name: bindparam(f"new_{name}") for name in ("status", "version", "updated_at")})
)

_new = postgresql.insert(known_user)
# Events may arrive twice, late, or before the registration: whatever is newest wins.
RECORD_USER = _new.on_conflict_do_update(
    index_elements=[known_user.c.user_id],
    set_={
        "active": _new.excluded.active,
        "version": _new.excluded.version,
        "traceparent": _new.excluded.traceparent,
        "recorded_at": func.clock_timestamp(),
    },
    where=known_user.c.version < _new.excluded.version,
)

_verdict = postgresql.insert(order_verdict)
RECORD_VERDICT = _verdict.on_conflict_do_update(
    index_elements=[order_verdict.c.order_id], set_={"verdict": _verdict.excluded.verdict}
)

_ORDERS = select(orders, order_verdict.c.verdict.label("fraud_verdict")).select_from(
    orders.outerjoin(order_verdict, order_verdict.c.order_id == orders.c.id)
)
_FIND_ORDER = _ORDERS.where(orders.c.id == bindparam("order_id"))
_FIND_AND_LOCK_ORDER = _FIND_ORDER.with_for_update(of=orders)
_FIND_USER = select(
    known_user.c.user_id, known_user.c.active, known_user.c.version, known_user.c.traceparent
).where(known_user.c.user_id == bindparam("wanted"))
_FIRST_PAGE = (
    _ORDERS.where(orders.c.user_id == bindparam("of_user"))
    .order_by(orders.c.id.desc())
    .limit(bindparam("page_size"))
)
_NEXT_PAGE = _FIRST_PAGE.where(orders.c.id < bindparam("before"))


def inserted(order: Order) -> dict[str, Any]:
    """The row for `INSERT_ORDER`."""
    return {
        "id": order.id,
        "user_id": order.user_id,
        "currency": order.currency,
        "lines": [
            {"sku": line.sku, "quantity": line.quantity, "unit_amount": line.unit_amount} for line in order.lines
        ],
        "total_amount": order.total_amount,
        "status": order.status.value,
        "version": order.version,
        "placed_at": order.placed_at,
        "updated_at": order.updated_at,
        "note": order.note,
    }


def inserted_of_user(order: Order, user: KnownUser) -> dict[str, Any]:
    """The row for `INSERT_ORDER_OF_USER`, of a user as it was read."""
    row = {f"new_{name}": value for name, value in inserted(order).items()}
    return {**row, "user_version": user.version}


def is_of_changed_user(error: IntegrityError) -> bool:
    """Whether `INSERT_ORDER_OF_USER` was refused because the user is not any more what was read."""
    cause = error.orig and error.orig.__cause__
    if not isinstance(cause, asyncpg.NotNullViolationError):
        return False
    return (cause.table_name, cause.column_name) == (orders.name, orders.c.user_id.name)


def changed(order: Order) -> dict[str, Any]:
    """The row for `UPDATE_ORDER`."""
    return {
        "order_id": order.id,
        "new_status": order.status.value,
        "new_version": order.version,
        "new_updated_at": order.updated_at,
    }


async def find_order(connection: AsyncConnection, order_id: UUID, *, lock: bool = False) -> Order | None:
    """The order; with `lock`, nobody else changes it until the transaction ends."""
    statement = _FIND_AND_LOCK_ORDER if lock else _FIND_ORDER
    row = (await connection.execute(statement, {"order_id": order_id})).mappings().first()
    return None if row is None else _order(row)


async def list_orders(
    connection: AsyncConnection, user_id: UUID, before: UUID | None, page_size: int
) -> list[Order]:
    """A user's orders, newest first, beginning after the order `before`."""
    parameters = {"of_user": user_id, "page_size": page_size}
    if before is None:
        result = await connection.execute(_FIRST_PAGE, parameters)
    else:
        result = await connection.execute(_NEXT_PAGE, {**parameters, "before": before})
    return [_order(row) for row in result.mappings()]


async def find_user(connection: AsyncConnection, user_id: UUID) -> KnownUser | None:
    row = (await connection.execute(_FIND_USER, {"wanted": user_id})).first()
    return None if row is None else KnownUser(*row)


class Users:
    """Those that were read before and may place orders, so that it takes one round trip, not two.

    What is remembered decides nothing: `INSERT_ORDER_OF_USER` asks whether the user is still as it was read.
    """

    def __init__(self) -> None:
        self._read: dict[UUID, KnownUser] = {}

    async def find(self, connection: AsyncConnection, user_id: UUID) -> KnownUser:
        """The user, as it is or was. Raises `UserNotKnownError` and `UserDeactivatedError`."""
        user = self._read.get(user_id)
        if user is None:
            user = require_known(await find_user(connection, user_id), user_id)
            if len(self._read) >= _REMEMBERED_MAX:  # the one read first is forgotten
                del self._read[next(iter(self._read))]
            self._read[user_id] = user
        return user

    def forget(self, user_id: UUID) -> None:
        """It is read again when it is asked for: it is not what was read any more."""
        self._read.pop(user_id, None)


def _order(row: Mapping[Any, Any]) -> Order:
    lines = tuple(Line(**line) for line in row["lines"])
    verdict = None if row["fraud_verdict"] is None else Verdict(row["fraud_verdict"])
    return Order(**{**row, "lines": lines, "status": OrderStatus(row["status"]), "fraud_verdict": verdict})
