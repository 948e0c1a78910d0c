"""The use cases of signing in, each in a transaction of its own: an attempt is counted before it is judged."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.sign_in import (
    FIRST_ADMINISTRATOR,
    SESSION_FOR,
    NotSignedInError,
    Role,
    Session,
    TooManyAttemptsError,
    Who,
)
from services.wallet.store import sign_in as rows
from services.wallet.store.sign_in import Attempt
from shared.publishing import UnitOfWork


async def is_known(uow: UnitOfWork, name: str) -> bool:
    """Whether somebody signs in with this name."""
    return await rows.is_known(uow.connection, name)


def appoint_first(uow: UnitOfWork, password_hash: str) -> None:
    """Have the first administrator, where there is none of that name."""
    role = Role.ADMINISTRATOR.value
    row = {"name": FIRST_ADMINISTRATOR, "role": role, "user_id": None, "password_hash": password_hash}
    uow.tell(rows.INSERT_SIGN_IN_IF_NEW, row)


async def begin_attempt(uow: UnitOfWork, name: str) -> Attempt | None:
    """Count an attempt, and what to judge it by; None where nobody has this name.

    Raises `TooManyAttemptsError` where the name has to wait.
    """
    attempt = await rows.begin_attempt(uow.connection, name)
    if attempt is None and await rows.is_known(uow.connection, name):
        raise TooManyAttemptsError("after wrong passwords this name has to wait; try again later")
    return attempt


async def begin_session(uow: UnitOfWork, who: Who) -> Session:
    """A session of who has given the right password."""
    await rows.end_attempts(uow.connection, who.name)
    session = Session(who, secrets.token_urlsafe(32), datetime.now(UTC) + SESSION_FOR)
    row = {"token_sha256": _sha256(session.token), "name": who.name, "expires_at": session.expires_at}
    uow.tell(rows.INSERT_SESSION, row)
    return session


async def who_are(connection: AsyncConnection, tokens: Sequence[str]) -> list[Who | Exception]:
    """Whose sessions these are, by one statement: for each who it is, or `NotSignedInError`."""
    hashes = [_sha256(token) for token in tokens]
    found = await rows.find_who(connection, set(hashes))
    return [found.get(one) or NotSignedInError("sign in first, or again") for one in hashes]


async def end_session(uow: UnitOfWork, token: str) -> None:
    """End the session, if there is one."""
    await rows.end_session(uow.connection, _sha256(token))


async def change_password(uow: UnitOfWork, name: str, password_hash: str) -> None:
    """Have another password from now on; all sessions of this name end."""
    await rows.set_password(uow.connection, name, password_hash)


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
