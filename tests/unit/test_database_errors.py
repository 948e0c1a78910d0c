"""What the database's errors become: unavailable where any event would fail, else they pass as they are."""

from __future__ import annotations

from types import SimpleNamespace

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError

from shared.database import Database, database_errors, network_errors
from shared.errors import TransientError, UnavailableError
from shared.settings import Settings

TOO_MANY = asyncpg.InterfaceError("the number of query arguments cannot exceed 32767")
CLOSED = asyncpg.InterfaceError("cannot call PreparedStatement.fetch(): the underlying connection is closed")


def wrapped(cause: Exception, *, invalidated: bool = False) -> DBAPIError:
    """As SQLAlchemy raises it: the driver's error is the cause of the adapter's."""
    adapters = Exception(str(cause))
    adapters.__cause__ = cause
    kind = InterfaceError if isinstance(cause, asyncpg.InterfaceError) else DBAPIError
    return kind("select 1", {}, adapters, connection_invalidated=invalidated)


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(
    "cause",
    [
        CLOSED,
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.AdminShutdownError("terminating connection"),
        asyncpg.DiskFullError("could not extend file"),
        asyncpg.PostgresIOError("could not read block 7 in file: Input/output error"),
        asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_what_no_event_is_to_blame_for_is_unavailable(cause: Exception, bare: bool) -> None:
    with pytest.raises(UnavailableError), database_errors():
        raise cause if bare else wrapped(cause)


@pytest.mark.parametrize(
    "cause", [TOO_MANY, asyncpg.UniqueViolationError("again")], ids=lambda cause: type(cause).__name__
)
def test_what_the_same_event_will_always_cause_passes_as_it_is(cause: Exception) -> None:
    for error in (cause, wrapped(cause)):
        with pytest.raises(type(error)) as raised, database_errors():
            raise error
        assert raised.value is error


def test_a_connection_that_was_lost_meanwhile_is_unavailable_whatever_was_said_last() -> None:
    with pytest.raises(UnavailableError), database_errors():
        raise wrapped(TOO_MANY, invalidated=True)


def test_a_deadlock_is_transient_and_the_server_is_there() -> None:
    with pytest.raises(TransientError) as raised, database_errors():
        raise wrapped(asyncpg.DeadlockDetectedError("deadlock"))
    assert not isinstance(raised.value, UnavailableError)


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), asyncpg.InterfaceError("bad option")])
def test_whatever_goes_wrong_while_connecting_is_unavailable(error: Exception) -> None:
    with pytest.raises(UnavailableError), network_errors():
        raise error


async def test_a_session_that_the_driver_lost_track_of_is_unavailable_and_used_no_more() -> None:
    """Its complaint is none of its database errors: an event would be put aside for it."""
    lost = asyncpg.ProtocolError("cannot switch to state 15; another operation (2) is in progress")
    settings = Settings.from_environment(
        broker="kafka", kafka_bootstrap="-:1", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-"
    )
    engine = Database(settings, "tester").engine.sync_engine
    failure = SimpleNamespace(original_exception=lost, is_disconnect=False)
    [hook] = engine.dialect.dispatch.handle_error
    assert isinstance(hook(failure), UnavailableError)
    assert failure.is_disconnect
