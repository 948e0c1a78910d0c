"""The short way of a statement: which statements have one, in what form, and on what of SQLAlchemy's it rests."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Executable,
    Identity,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from shared import statements
from shared.publishing.outbox import Asks, publishing, publishing_beside

ENGINE = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
THING = Table(
    "thing",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("position", BigInteger, Identity()),
    Column("body", postgresql.JSONB),
    Column("note", Text),
)
OTHER = Table(
    "other",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("price", BigInteger),
    Column("made", Text, default=lambda: "here", onupdate=lambda: "there"),
)
ID = UUID(int=7)
GET = select(THING.c.note).where(THING.c.id == bindparam("wanted"))


def form_of(statement: Executable, *names: str) -> statements._Form | None:
    known = statements._Known(ENGINE.dialect, statement, names)
    result: Any = SimpleNamespace(
        context=SimpleNamespace(cursor=SimpleNamespace(description=None)), _metadata=None
    )
    known.look(result)
    assert known.form is None, "what is executed once is not compiled"
    known.look(result)
    return known.form


@pytest.mark.parametrize(
    ("statement", "parameters", "values"),
    [
        (insert(THING), {"note": "n", "id": ID, "body": {"a": [1, None]}}, (ID, '{"a": [1, null]}', "n")),
        (GET, {"wanted": ID}, (ID,)),
        (GET.limit(3), {"wanted": ID}, (ID, 3)),
        (GET.where(THING.c.note != "it's"), {"wanted": ID}, (ID, "it's")),
        (update(THING).where(THING.c.id == bindparam("of")).values(note=bindparam("new")), {"of": ID, "new": None},
         (None, ID)),
        (text("select :a, :b, :a"), {"b": 2, "a": "1"}, ("1", 2)),
        (text("select 1"), {}, ()),
    ],
)  # fmt: skip
def test_the_values_are_put_where_sqlalchemy_puts_them(
    statement: Executable, parameters: Mapping[str, Any], values: tuple[Any, ...]
) -> None:
    form = form_of(statement, *parameters)
    assert form is not None
    assert form.values(parameters) == values
    compiled: Any = statement.compile(dialect=ENGINE.dialect, column_keys=sorted(parameters))  # type: ignore[attr-defined]
    assert form.sql == str(compiled), "so that a connection prepares it once, whoever sends it"


@pytest.mark.parametrize("asks", Asks)
@pytest.mark.parametrize("one", [True, False])
def test_what_is_published_alone_or_beside_an_insert_goes_the_short_way(asks: Asks, one: bool) -> None:
    columns = ("shard", "channel", "type", "key", "event_id", "traceparent", "body")
    names = [f"outbox_{name}" for name in columns]
    both = publishing_beside(insert(THING), asks, one=one)
    assert both is not None
    assert form_of(both, "id", "note", *names) is not None
    assert form_of(publishing(asks, one=one), *names) is not None


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        (select(THING.c.id).where(THING.c.note.in_(bindparam("notes", expanding=True))), ["notes"]),
        (select(THING.c.id).limit(bindparam("most", literal_execute=True)), ["most"]),
        (select(THING.c.id).where(THING.c.note == bindparam("now", callable_=lambda: "x")), []),
        (select(THING.c.id).execution_options(stream_results=True), []),
        (insert(OTHER), ["id"]),
        (update(OTHER).where(OTHER.c.id == bindparam("of")).values(price=1), ["of"]),
        (GET, []),
        (GET.params(wanted=ID), []),
    ],
)  # fmt: skip
def test_what_is_unusual_goes_sqlalchemys_way(statement: Executable, names: list[str]) -> None:
    assert form_of(statement, *names) is None


def test_what_the_short_way_uses_of_sqlalchemys_inside_is_there() -> None:
    """When SQLAlchemy is raised, this fails first: then look at `shared/statements.py`, and at its tests."""
    cursor = AsyncAdapt_asyncpg_cursor
    assert inspect.iscoroutinefunction(cursor._prepare_and_execute)
    assert list(inspect.signature(cursor._prepare_and_execute).parameters) == ["self", "operation", "parameters"]
    assert "_invalidate_schema_cache_asof" in cursor.__slots__
    assert "self._rows = deque(await prepared_stmt.fetch(*parameters))" in inspect.getsource(
        cursor._prepare_and_execute
    )
    assert ENGINE.dialect._invalidate_schema_cache_asof == 0  # type: ignore[attr-defined]
    assert ENGINE.sync_engine._has_events is False
    assert {"self._has_events =", "self._echo ="} <= {
        found
        for found in ("self._has_events =", "self._echo =")
        if found in inspect.getsource(Connection.__init__)
    }
    assert list(inspect.signature(Connection._handle_dbapi_exception).parameters)[:6] == [
        "self", "e", "statement", "parameters", "cursor", "context",
    ]  # fmt: skip
    assert list(inspect.signature(ENGINE.dialect.execution_ctx_cls._init_statement).parameters) == [
        "dialect", "connection", "dbapi_connection", "execution_options", "statement", "parameters",
    ]  # fmt: skip
    compiled: Any = GET.compile(dialect=ENGINE.dialect)
    assert compiled.positiontup == ["wanted"]
    assert (compiled._collected_params, compiled.insert_prefetch, compiled.update_prefetch) == ({}, (), ())
    assert not compiled.implicit_returning
    assert (compiled.literal_execute_params, compiled.post_compile_params) == (frozenset(), frozenset())
    assert {"cursor_metadata", "iterator"} <= inspect.signature(IteratorResult).parameters.keys()
    assert SimpleResultMetaData(["a", "b"])._key_to_index.items() >= {"a": 0, "b": 1}.items()
    assert list(inspect.signature(AsyncConnection).parameters) == ["async_engine", "sync_connection"]
