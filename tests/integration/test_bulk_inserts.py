"""Rows told to a unit of work arrive as they were told, whether sent as arrays or one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Executable,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from shared.publishing.bulk import insert_of_arrays
from tests.integration.world import World

_metadata = MetaData()

_thing = Table(
    "bulk_thing",
    _metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("id", Uuid, nullable=False),
    Column("label", Text),
    Column("number", Integer, nullable=False),
    Column("large", BigInteger),
    Column("flag", Boolean),
    Column("at", DateTime(timezone=True)),
    Column("body", LargeBinary),
    Column("written_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)
_counted = Table(
    "bulk_counted",
    _metadata,
    Column("number", Integer, primary_key=True),
    Column("made_by_python", Uuid, nullable=False, default=uuid4),
    Column("document", JSON),
    Column("amount", Numeric),
)
_INSERT = insert(_thing)


@pytest.fixture
async def world(rabbit_world: World) -> World:
    async with rabbit_world.database.transaction() as connection:
        await connection.run_sync(_metadata.create_all)
        await connection.execute(text("truncate bulk_thing, bulk_counted restart identity"))
    return rabbit_world


def _row(number: int) -> dict[str, Any]:
    every_third_is_null = number % 3 == 0
    return {
        "id": UUID(int=number),
        "label": None if every_third_is_null else f"ünïcode {{}},\"'\\ {number}",
        "number": number,
        "large": None if every_third_is_null else 2**62 + number,
        "flag": None if every_third_is_null else bool(number % 2),
        "at": None if every_third_is_null else datetime(2026, 1, 1, 0, number % 60, tzinfo=UTC),
        "body": None if every_third_is_null else bytes([number % 256, 0, 255]),
    }


async def _tell(world: World, rows: list[dict[str, Any]]) -> None:
    async with world.units.begin() as uow:
        for row in rows:
            uow.tell(_INSERT, row)


async def test_rows_of_every_simple_type_arrive_in_order(world: World) -> None:
    rows = [_row(number) for number in range(700, 0, -1)]
    assert insert_of_arrays(_INSERT, tuple(rows[0])) is not None
    await _tell(world, rows)
    columns = [_thing.c[name] for name in rows[0]]
    async with world.database.transaction() as connection:
        stored = await connection.execute(select(*columns).order_by(_thing.c.position))
        assert [dict(row) for row in stored.mappings()] == rows


async def test_one_bad_row_leaves_none(world: World) -> None:
    rows = [_row(1), _row(2), {**_row(3), "number": None}, _row(4)]
    with pytest.raises(IntegrityError):
        await _tell(world, rows)
    async with world.database.transaction() as connection:
        assert (await connection.execute(select(func.count()).select_from(_thing))).scalar_one() == 0


async def test_what_arrays_cannot_carry_goes_row_by_row(world: World) -> None:
    statement = insert(_counted)
    async with world.units.begin() as uow:
        for number in range(5):
            uow.tell(statement, {"number": number, "document": {"a": [number]}, "amount": number})
    async with world.database.transaction() as connection:
        stored = (await connection.execute(select(_counted).order_by(_counted.c.number))).all()
    assert [row.document for row in stored] == [{"a": [number]} for number in range(5)]
    assert len({row.made_by_python for row in stored}) == 5


@pytest.mark.parametrize(
    "statement",
    [
        _INSERT.values(label="same"),
        _INSERT.values(number=bindparam("number") + 1),
        _INSERT.returning(_thing.c.id),
        _INSERT.prefix_with("/* hint */"),
        postgresql.insert(_thing).on_conflict_do_nothing(),
        update(_thing).where(_thing.c.number == bindparam("number")).values(flag=True),
        text("select :number"),
        insert(_counted),
    ],
    ids=str,
)
def test_only_a_plain_insert_is_turned_into_arrays(statement: Executable) -> None:
    assert insert_of_arrays(statement, ("number",)) is None


def test_a_column_that_the_table_has_not_is_left_to_the_driver() -> None:
    assert insert_of_arrays(_INSERT, ("number", "nonsense")) is None
