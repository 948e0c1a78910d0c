"""A connection that takes a shorter way to the driver with each statement that it has seen before.

Why: SQLAlchemy makes four objects for each execution, switches greenlets, and looks at each parameter and column
anew: about 47 of the 66 µs of CPU that a select by key costs (three pairs by turns). Here a statement is compiled
once, and then its values are given to SQLAlchemy's own adapter of asyncpg, which begins the transaction and keeps
the prepared statements, as always. The rows are SQLAlchemy's, by what it found out about their columns. What the
driver raises is handled by SQLAlchemy, so that an error is the same one, and a broken connection leaves the pool.
What is unusual goes SQLAlchemy's way.

requirements.in holds SQLAlchemy below its next version for this file's sake, and tests/unit/test_statements.py
says what is gone when that is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from sqlalchemy import Connection, CursorResult, Dialect, Executable
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import ResultMetaData, SimpleResultMetaData
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.util import greenlet_spawn, immutabledict

Parameters = Mapping[str, Any]
_Place = tuple[str, Callable[[Any], Any] | None]
"""The name of the parameter that is put there, and what the driver's value is made of it by."""

_KNOWN_MAX = 512


class DirectConnection(AsyncConnection):
    """Executes as SQLAlchemy's does. A result that came the shorter way has rows and `rowcount`, and no more."""

    __slots__ = ()

    async def execute(
        self, statement: Executable, parameters: Any = None, *, execution_options: Any = None
    ) -> Any:
        """The result, as `AsyncConnection.execute` returns it. Raises what that raises."""
        session = self.sync_connection
        if session is None or execution_options or not _is_plain(session) or not _is_one(parameters):
            return await super().execute(statement, parameters, execution_options=execution_options)
        known = _known(session.dialect, statement, tuple(parameters or ()))
        form = known.form
        try:
            values = None if form is None else form.values(parameters or {})
        except Exception:  # noqa: BLE001 - SQLAlchemy says, when it comes to the same value, what is wrong with it
            values = None
        if form is None or values is None:
            result = await super().execute(statement, parameters)
            known.look(result)
            return result
        cursor = await _executed(session, form.sql, values)
        return _Result(form.columns_in(cursor), () if form.keeps_rows else cursor._rows, cursor._rowcount)


class _Result(IteratorResult[Any]):
    """Rows as the driver has them, and how many the statement was about."""

    def __init__(self, columns: ResultMetaData, rows: Iterable[Any], rowcount: int) -> None:
        self.rowcount = rowcount
        self.returns_rows: bool = getattr(columns, "returns_rows", True)
        super().__init__(columns, iter(rows) if self.returns_rows else _refusing(columns))


def _refusing(columns: Any) -> Iterator[Any]:
    """Raises when it is asked for a row, as SQLAlchemy does where a statement returns none."""
    yield columns._we_dont_return_rows()


def _is_one(parameters: object) -> bool:
    return parameters is None or isinstance(parameters, dict)


def _is_plain(session: Connection) -> bool:
    """Whether it is in a transaction, in no savepoint, without options of its own, and nobody watches it."""
    return (
        session.in_transaction()
        and session.get_nested_transaction() is None
        and not session.get_execution_options()
        and not session._has_events
        and not session.engine._has_events
        and not session._echo
    )


@dataclass(frozen=True, slots=True)
class _Form:
    """A statement as the driver takes it, with the places of its values."""

    sql: str
    places: Sequence[_Place]
    constants: Parameters
    """The values that the statement holds itself."""
    columns: ResultMetaData
    """What SQLAlchemy found of them when it executed the statement."""
    column_names: Sequence[str]
    keeps_rows: bool
    """It returns a key that SQLAlchemy asks for, and nobody else did."""

    def values(self, parameters: Parameters) -> tuple[Any, ...]:
        """What the driver is given. Raises what a type raises that cannot take its parameter."""
        if self.constants:
            parameters = {**self.constants, **parameters}
        return tuple([parameters[name] if bind is None else bind(parameters[name]) for name, bind in self.places])

    def columns_in(self, cursor: Any) -> ResultMetaData:
        """Those of the rows that were read; others than were found where a table has changed meanwhile."""
        names = _column_names(cursor)
        return self.columns if names == self.column_names else SimpleResultMetaData(names)


class _Known:
    """A statement with the names of its parameters; its form, once it was executed twice.

    One that is made for each execution would cost more by being compiled than this way saves.
    """

    def __init__(self, dialect: Dialect, statement: Executable, names: tuple[str, ...]) -> None:
        self._asked = dialect, statement, names
        self._seen = 0
        self.form: _Form | None = None

    def look(self, result: CursorResult[Any]) -> None:
        """SQLAlchemy has executed it, with this result."""
        self._seen += 1
        if self._seen == 2:
            self.form = _form_of(*self._asked, result)


_known = lru_cache(_KNOWN_MAX)(_Known)


def _form_of(dialect: Dialect, statement: Any, names: Collection[str], result: CursorResult[Any]) -> _Form | None:
    """The form, if nothing is left to do at each execution but to give the values and to take the rows."""
    compiled = statement.compile(dialect=dialect, column_keys=sorted(names))
    if not isinstance(compiled, SQLCompiler) or _at_each_execution(compiled):
        return None
    constants: dict[str, Any] = {}
    places = []
    for name in compiled.positiontup or ():
        parameter = compiled.binds[name]
        key = name if name in names and parameter.key not in names else parameter.key
        if key not in names:
            if parameter.required or parameter.callable is not None:
                return None
            constants[key] = parameter.value
        places.append((key, parameter.type.dialect_impl(dialect).bind_processor(dialect)))
    described = _column_names(result.context.cursor)
    return _Form(
        compiled.string, places, constants, result._metadata, described, bool(compiled.implicit_returning)
    )


def _column_names(cursor: Any) -> list[str]:
    return [column[0] for column in cursor.description or ()]


def _at_each_execution(compiled: SQLCompiler) -> bool:
    """Whether there is something to do: values and options that are found then."""
    return bool(
        compiled.insert_prefetch
        or compiled.update_prefetch
        or compiled.literal_execute_params
        or compiled.post_compile_params
        or compiled._collected_params
        or compiled.execution_options
    )


async def _executed(session: Connection, sql: str, values: tuple[Any, ...]) -> Any:
    """The adapter's cursor, which has executed it. Raises what SQLAlchemy raises."""
    dialect: Any = session.dialect
    adapter: Any = session.connection.dbapi_connection
    cursor = adapter.cursor()
    cursor._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof
    try:
        await cursor._prepare_and_execute(sql, values)
    except BaseException as error:  # noqa: BLE001 - raised again by SQLAlchemy, which a cancellation concerns, too
        await greenlet_spawn(_failed, session, error, sql, values)
    return cursor


def _failed(session: Connection, error: BaseException, sql: str, values: tuple[Any, ...]) -> NoReturn:
    """Have SQLAlchemy handle what the driver raised, as if it had executed the statement. Runs in a greenlet, in
    which it may end the connection."""
    context = session.dialect.execution_ctx_cls._init_statement(
        session.dialect, session, session.connection, immutabledict(), sql, [values]
    )
    try:
        raise error  # noqa: TRY301 - what is handled must be raised here
    except BaseException as raised:  # noqa: BLE001 - it is raised there, as the one or the other
        session._handle_dbapi_exception(raised, sql, values, context.cursor, context)
