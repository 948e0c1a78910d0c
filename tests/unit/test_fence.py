"""A fence: what its row can be put into, and what it is put before."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Executable,
    Integer,
    MetaData,
    Table,
    bindparam,
    delete,
    insert,
    text,
    update,
)
from sqlalchemy.dialects import postgresql

from shared.publishing.fence import fenced, put_before
from shared.publishing.told import Statement

TABLE = Table("thing", MetaData(), Column("n", Integer))
INSERT, UPDATE, OTHER = insert(TABLE), update(TABLE).values(n=1), insert(TABLE).values(n=2)
DIALECT: Any = postgresql.dialect
FENCE = text("insert into seen (id) values (:fence_id)")


@pytest.mark.parametrize(
    ("statement", "begins", "ends"),
    [
        (INSERT, "WITH fence AS", "INSERT INTO thing (n) VALUES (:n::INTEGER)"),
        (UPDATE, "WITH fence AS", "UPDATE thing SET n=:n::INTEGER"),
        (delete(TABLE), "WITH fence AS", "DELETE FROM thing"),
        (postgresql.insert(TABLE).on_conflict_do_nothing(), "WITH fence AS", "ON CONFLICT DO NOTHING"),
        (text("\n  with a as (select 1) select 2"), "with fence as (", "), a as (select 1) select 2"),
        (text("insert into thing values (:n)"), "with fence as (", ") insert into thing values (:n)"),
        (text("update thing set n = 1"), "with fence as (", ") update thing set n = 1"),
        (text("delete from thing"), "with fence as (", ") delete from thing"),
    ],
)
def test_what_writes_has_a_fence_put_in(statement: Executable, begins: str, ends: str) -> None:
    both: Any = fenced(statement, FENCE)
    said = str(both.compile(dialect=DIALECT(paramstyle="named")) if begins[0] == "W" else both)
    assert said.startswith(begins)
    assert said.endswith(ends)
    assert "insert into seen (id) values (:fence_id)" in said
    statements: list[Statement] = [(statement, {"n": 1}), (OTHER, {})]
    put_before(statements, (FENCE, {"fence_id": 7}))
    assert statements == [(both, {"n": 1, "fence_id": 7}), (OTHER, {})]


@pytest.mark.parametrize(
    "told",
    [
        (text("with recursive a as (select 1) select 2"), {}),
        (text("select 1"), {}),
        (INSERT, [{"n": 1}, {"n": 2}]),
    ],
)
def test_before_what_can_have_none_it_is_sent_by_itself(told: Statement) -> None:
    statements = [told]
    put_before(statements, (FENCE, {"fence_id": 7}))
    assert statements == [(FENCE, {"fence_id": 7}), told]


def test_a_text_keeps_the_types_of_its_parameters() -> None:
    of_type = bindparam("ids", type_=ARRAY(BigInteger))
    both: Any = fenced(text("delete from thing where n = any(:ids)").bindparams(of_type), FENCE)
    compiled: Any = both.compile()
    assert isinstance(compiled.binds["ids"].type, ARRAY)
