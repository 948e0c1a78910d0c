"""The short way of a statement to the driver, for what a unit of work sends again and again.

Why: SQLAlchemy makes four objects for each execution, switches greenlets, and looks at each parameter and column
anew: about 47 of the 66 µs of CPU that a select by key costs (three pairs by turns). Here a statement is compiled
once, and then its values are given to SQLAlchemy's own adapter of asyncpg, which begins the transaction and keeps
the prepared statements, as always. What the driver raises is handled by SQLAlchemy, so that an error is the same
one, and a broken connection leaves the pool. What is unusual goes SQLAlchemy's way.

requirements.in holds SQLAlchemy below its next version for this file's sake, and tests/unit/test_statements.py
says what is gone when that is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from sqlalchemy import Connection, Dialect, Executable, Numeric
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.util import greenlet_spawn, immutabledict

Parameters = Mapping[str, Any]
_Place = tuple[str, Callable[[Any], Any] | None]
"""The name of the parameter that is put there, and what the driver's value is made of it by."""

_KNOWN_MAX = 1_024


async def send(
    connection: AsyncConnection, statement: Executable, parameters: Parameters | Sequence[Parameters]
) -> None:
    """Execute a statement of whose result nothing is wanted; with a sequence, once for each of its rows.

    Raises what `connection.execute` raises.
    """
    if await _taken(connection, statement, parameters) is None:
        await connection.execute(statement, parameters)


async def fetch(connection: AsyncConnection, statement: Executable, parameters: Parameters) -> Sequence[Any]:
    """Execute a statement; return its rows, each to be unpacked into its columns, or indexed by their position.

    Raises what `connection.execute` raises.
    """
    rows = await _taken(connection, statement, parameters)
    return (await connection.execute(statement, parameters)).all() if rows is None else rows


async def _taken(connection: AsyncConnection, statement: Executable, parameters: Any) -> Sequence[Any] | None:
    """Execute it the short way and return its rows; None, and nothing is done, where there is no such way."""
    session = connection.sync_connection if isinstance(connection, AsyncConnection) else None
    if session is None or not isinstance(parameters, Mapping) or not _is_plain(session):
        return None
    known = _known(session.dialect, statement, tuple(parameters))
    form = known.form
    if form is None:
        known.look()
        return None
    try:
        values = form.values(parameters)
    except Exception:  # noqa: BLE001 - SQLAlchemy says, when it comes to the same value, what is wrong with it
        return None
    dialect: Any = session.dialect
    adapter: Any = session.connection.dbapi_connection
    cursor = adapter.cursor()
    cursor._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof
    try:
        await cursor._prepare_and_execute(form.sql, values)
    except BaseException as error:  # noqa: BLE001 - raised again by SQLAlchemy, which a cancellation concerns, too
        await greenlet_spawn(_failed, session, error, form.sql, values)
    return list(cursor._rows)


def _is_plain(session: Connection) -> bool:
    """Whether it is in a transaction, in no savepoint, without options of its own, and nobody watches it."""
    return (
        session.in_transaction()
        and session.get_nested_transaction() is None
        and session.get_execution_options().keys() <= {"isolation_level"}
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

    def values(self, parameters: Parameters) -> tuple[Any, ...]:
        """What the driver is given. Raises what a type raises that cannot take its parameter."""
        if self.constants:
            parameters = {**self.constants, **parameters}
        return tuple([parameters[name] if bind is None else bind(parameters[name]) for name, bind in self.places])


class _Known:
    """A statement with the names of its parameters; its form, once it was seen twice.

    One that is made for each execution would cost more by being compiled than this way saves.
    """

    def __init__(self, dialect: Dialect, statement: Executable, names: tuple[str, ...]) -> None:
        self._asked = dialect, statement, names
        self._seen = 0
        self.form: _Form | None = None

    def look(self) -> None:
        """It is there, and has no form yet."""
        self._seen += 1
        if self._seen == 2:
            with suppress(SQLAlchemyError):  # it is refused by SQLAlchemy when that executes it
                self.form = _form_of(*self._asked)


_known = lru_cache(_KNOWN_MAX)(_Known)


def _form_of(dialect: Dialect, statement: Any, names: Collection[str]) -> _Form | None:
    """The form, if nothing is left to do at each execution but to give the values and to take the columns as the
    driver has them."""
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
    return _Form(compiled.string, places, constants)


def _at_each_execution(compiled: SQLCompiler) -> bool:
    """Whether there is something to do: values and options that are found then, columns that become others."""
    dialect = compiled.dialect
    types = [column[3].dialect_impl(dialect) for column in compiled._result_columns]
    return bool(
        compiled.insert_prefetch
        or compiled.update_prefetch
        or compiled.literal_execute_params
        or compiled.post_compile_params
        or compiled._collected_params
        or compiled.execution_options
        or any(isinstance(type_, Numeric) or type_.result_processor(dialect, None) for type_ in types)
    )


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
