"""A user who was read before: an order is one statement, and right whatever has changed since."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event

from deploy.native import Runtime
from services.order import app
from tests.integration.databases import migrated_database
from tests.integration.served import Running, served


@pytest.fixture
async def order(servers: Runtime) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        yield served(stack, servers, app.SERVICE, await migrated_database(servers, app.SERVICE.name))


async def known_user(order: Running, version: int = 1, event_type: str = "user.registered", **data: Any) -> str:
    user_id = data.pop("user_id", None) or str(uuid4())
    await order.receive(event_type, {"user_id": user_id, "version": version, **data})
    return user_id


def new_order(user_id: str) -> dict[str, Any]:
    return {"user_id": user_id, "currency": "EUR", "lines": [{"sku": "TEA", "quantity": 1, "unit_amount": 1}]}


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "the-second"}])
async def test_a_user_that_was_read_before_is_asked_for_by_the_orders_own_statement_whatever_changed_since(
    order: Running, key: dict[str, str]
) -> None:
    user_id = await known_user(order)
    statements: list[str] = []
    event.listen(
        order.process.parts.http_database.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )

    async def place(**headers: str) -> int:
        statements.clear()
        return (await order.http.post("/orders", json=new_order(user_id), headers=headers)).status_code

    assert (await place(), len(statements)) == (201, 2)
    assert (await place(), len(statements)) == (201, 1)
    await known_user(order, 2, "user.profile_updated", user_id=user_id)
    assert await place(**key) == 201
    assert (await place(), len(statements)) == (201, 1)
    await known_user(order, 3, "user.deactivated", user_id=user_id)
    assert await place(**key) == (201 if key else 409), "what was answered before is answered again"
    assert await place() == 409
    assert len(await order.published()) == len(await order.rows("select id from orders")) == 4


async def test_a_user_who_changes_before_each_order_is_written_may_come_back(order: Running) -> None:
    user_id, version = await known_user(order), 1
    engine = order.process.parts.http_database.engine.sync_engine

    def change(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal version
        if "INSERT INTO orders" in statement:
            version += 1
            cursor.execute(f"update known_user set version = {version}", ())

    event.listen(engine, "before_cursor_execute", change)
    assert (await order.http.post("/orders", json=new_order(user_id))).status_code == 503
    event.remove(engine, "before_cursor_execute", change)
    assert await order.published() == []
    assert (await order.http.post("/orders", json=new_order(user_id))).status_code == 201
