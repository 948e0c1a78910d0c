"""PostgreSQL: the engine with every option explicit, transactions, and the map of its errors to ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import Engine, ExceptionContext, RootTransaction, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from shared.errors import TransientError, UnavailableError
from shared.settings import Settings
from shared.statements import DirectConnection

_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DiskFullError,
    asyncpg.PostgresSystemError,  # its disk fails, or its files are gone
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a server that protects what is left of its disk
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    ConnectionError,
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
)
_TRANSIENT = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)


LOST_PEER: Mapping[str, str] = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
"""Session settings by which the server ends, within half a minute, the session of a process whose machine or
network is gone. By default that takes two hours, in which it keeps its locks: the relay's lead among them."""

SESSION_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a session outside the pool raises when it is of no more use. The last but one: the driver has lost track of
a session that ended in the midst of an answer."""


def _cause(error: BaseException) -> BaseException:
    """The driver's own exception inside SQLAlchemy's."""
    while isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    return error.__cause__ if error.__cause__ is not None and not isinstance(error, OSError) else error


@contextmanager
def database_errors() -> Iterator[None]:
    """Maps the driver's errors: no connection → `UnavailableError`, deadlock and the like → `TransientError`.

    Everything else (a constraint, a syntax error, an exception of the caller's own) passes as it is.
    """
    try:
        yield
    except (DBAPIError, PoolTimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        cause = _cause(error)
        if isinstance(cause, _TRANSIENT):
            raise TransientError(f"PostgreSQL: {cause}") from error
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        unreachable = isinstance(error, PoolTimeoutError | OperationalError)
        if lost or unreachable or isinstance(cause, _UNAVAILABLE) or _is_closed(cause):
            raise UnavailableError(f"PostgreSQL: {cause}") from error
        raise


def _is_closed(cause: BaseException) -> bool:
    """Whether the driver's own complaint is about its connection; else it is about how it was used, and the same
    statement will never pass: one with too many parameters."""
    return isinstance(cause, asyncpg.InterfaceError) and "closed" in str(cause)


@contextmanager
def network_errors() -> Iterator[None]:
    """Maps what the driver raises while connecting: no event is to blame for that. Refused connections and
    time-outs it raises bare."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError, InterfaceError) as error:  # TimeoutError is an OSError
        raise UnavailableError(_sentence(error)) from error


def _statement_failed(failure: ExceptionContext) -> BaseException | None:
    """The same for a statement or a commit, whoever sent it: a handler's own read among them. The engine asks
    here, so that an `OSError` which the caller raised by itself is told apart and passes as it is."""
    error = failure.original_exception
    if isinstance(error, asyncpg.InternalClientError):  # it has lost track of its session, which is of no more use
        failure.is_disconnect = True
    elif not isinstance(error, OSError):
        return None
    return UnavailableError(_sentence(error))


def _sentence(error: BaseException) -> str:
    return f"PostgreSQL: {str(error) or type(error).__name__}"


@asynccontextmanager
async def session(
    settings: Settings, application_name: str, **server_settings: str
) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A session outside the pool, for what listens or holds a lock; ended at once on leaving, also when it hangs.

    Raises one of `SESSION_LOST`, inside too.
    """
    connection = await asyncpg.connect(
        settings.postgres_dsn,
        timeout=settings.postgres_timeout_s,
        command_timeout=settings.postgres_timeout_s,
        server_settings={"application_name": application_name, "jit": "off", **LOST_PEER, **server_settings},
    )
    try:
        yield connection
    finally:
        connection.terminate()


class _Transaction:
    """A connection of the pool, and a transaction on it, for a block.

    Does what `engine.begin()` does, which goes into a greenlet four times and makes a task where two are enough.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def __aenter__(self) -> AsyncConnection:
        with network_errors():
            self._transaction = await greenlet_spawn(_begun, self._engine.sync_engine)
        return DirectConnection(self._engine, self._transaction.connection)

    async def __aexit__(self, *error: Any) -> None:
        await greenlet_spawn(_ended, self._transaction, *error)


def _begun(engine: Engine) -> RootTransaction:
    connection = engine.connect()
    return connection.begin().__enter__()


def _ended(transaction: RootTransaction, *error: Any) -> None:
    connection = transaction.connection
    try:
        transaction.__exit__(*error)
    finally:
        connection.close()


class Database:
    """The connection pool of one service's database."""

    def __init__(self, settings: Settings, application_name: str) -> None:
        self.dsn = settings.postgres_dsn
        self._timeout_s = settings.postgres_timeout_s
        self.engine: AsyncEngine = create_async_engine(
            settings.postgres_dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
            pool_size=settings.postgres_pool_max,
            max_overflow=0,
            pool_timeout=settings.postgres_timeout_s,
            pool_recycle=1_800,
            hide_parameters=True,  # an error's text ends in logs and dead letters: no payload in it
            connect_args={
                "timeout": settings.postgres_timeout_s,
                "command_timeout": settings.postgres_timeout_s,
                "server_settings": {
                    "application_name": application_name,
                    **LOST_PEER,
                    "jit": "off",  # plans are tiny; compiling them costs more than it saves
                    # Nobody runs longer than this: such a session belongs to a process that was stopped or cut
                    # off in the middle, and holds the inbox rows that its successor waits for.
                    "idle_in_transaction_session_timeout": str(int(settings.handler_timeout_s * 1_000)),
                },
            },
        )
        event.listen(self.engine.sync_engine, "handle_error", _statement_failed, retval=True)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed on leaving, rolled back on any exception, cancellation included."""
        with database_errors():
            async with _Transaction(self.engine) as connection:
                yield connection

    @asynccontextmanager
    async def late_transaction(self) -> AsyncIterator[tuple[AsyncConnection, Callable[[], None]]]:
        """As `transaction`, but until the function beside the connection is called each statement is a transaction
        of its own: what turns out to be one statement costs one round trip instead of three."""
        with database_errors():
            async with _Transaction(self.engine) as connection:
                session = connection.sync_connection.connection.dbapi_connection  # type: ignore[union-attr]
                session.autocommit = True  # type: ignore[union-attr]
                begin = partial(setattr, session, "autocommit", False)
                try:
                    yield connection, begin
                finally:
                    begin()  # the next one that gets it from the pool wants a transaction

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction of its own: of one statement that costs a third,
        since nothing is sent before and after it."""
        async with self.late_transaction() as (connection, _begin):
            yield connection

    async def ping(self) -> None:
        """Raises `UnavailableError` when no transaction is begun within the timeout, or none that may write: a
        standby answers questions, too, and so does a server that protects what is left of its disk."""
        try:
            async with asyncio.timeout(min(2.0, self._timeout_s)), self.transaction() as connection:
                read_only = await connection.scalar(text("show transaction_read_only"))
        except TimeoutError as error:
            raise UnavailableError("PostgreSQL: no answer in time") from error
        if read_only == "on":
            raise UnavailableError("PostgreSQL: takes no writes")

    async def close(self) -> None:
        """Close the pool's connections."""
        await self.engine.dispose()
