"""Signing in over HTTP, and how a route says who may call it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, FastAPI, Security
from fastapi.security import APIKeyCookie
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from services.wallet.domain.sign_in import (
    FIRST_ADMINISTRATOR,
    NAME_PATTERN,
    PASSWORD_LENGTH_MAX,
    PASSWORD_LENGTH_MIN,
    SESSION_FOR,
    NotAllowedError,
    NotSignedInError,
    Role,
    Session,
    Who,
    WrongPasswordError,
)
from services.wallet.handlers import sign_in
from services.wallet.handlers.passwords import Passwords
from services.wallet.http.gathering import Gathering
from services.wallet.http.problems import NOT_SIGNED_IN, TOO_MANY_ATTEMPTS, WRONG_PASSWORD
from shared.errors import UnavailableError
from shared.http.cross_origin import FOREIGN
from shared.http.openapi import problem_responses
from shared.process import Parts
from shared.publishing import UnitsOfWork

COOKIE = "tandem_session"
_LOOK_S: Final = 10.0
"""As long as anybody waits for a connection, by default."""
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="What `POST /session` sets.")

Token = Annotated[str | None, Security(_cookie)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN), Field(examples=["ada"])]
Password = Annotated[
    str,
    StringConstraints(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX),
    Field(examples=["a long sentence"]),
]


class SignIn:
    """Signs in and out; of one process. `first_password` makes the first administrator, where it is given.

    Whose sessions they are who ask at one moment is looked up for all of them at once: a crowd would take every
    connection to the database for it, one by one, and nobody else would get one.
    """

    def __init__(self, units: UnitsOfWork, first_password: str | None) -> None:
        self.passwords = Passwords()
        self._units = units
        self._first_password = first_password
        self._sessions = Gathering(self._look)

    async def begin(self, name: str, password: str) -> Session:
        """A session for who has this name and password.

        Raises `WrongPasswordError`, `TooManyAttemptsError`, and `UnavailableError` when too many sign in at once.
        """
        if name == FIRST_ADMINISTRATOR and self._first_password is not None:
            await self._appoint(self._first_password)
        who = await self._checked(name, password)
        async with self._units.begin() as uow:
            return await sign_in.begin_session(uow, who)

    async def change_password(self, who: Who, current: str, new: str) -> None:
        """Have another password from now on; all sessions end. Raises what `begin` raises."""
        await self._checked(who.name, current)
        password_hash = await self.passwords.hash(new)
        async with self._units.begin() as uow:
            await sign_in.change_password(uow, who.name, password_hash)

    async def who(self, token: str | None) -> Who:
        """Whose session this is. Raises `NotSignedInError`, and `UnavailableError` when that takes too long."""
        if token is None:
            raise NotSignedInError("sign in first, or again")
        try:
            async with asyncio.timeout(_LOOK_S):
                return await self._sessions.ask(token)
        except TimeoutError as error:
            raise UnavailableError("the database does not say in time who this is") from error

    async def end(self, token: str) -> None:
        """End the session, if there is one."""
        async with self._units.begin() as uow:
            await sign_in.end_session(uow, token)

    async def _look(self, tokens: Sequence[str]) -> Sequence[Who | Exception]:
        async with self._units.statement() as connection:
            return await sign_in.who_are(connection, tokens)

    async def _checked(self, name: str, password: str) -> Who:
        async with self._units.begin() as uow:
            attempt = await sign_in.begin_attempt(uow, name)
        right = await self.passwords.is_right(None if attempt is None else attempt.password_hash, password)
        if attempt is None or not right:
            raise WrongPasswordError("nobody of this name has this password")
        return attempt.who

    async def _appoint(self, first_password: str) -> None:
        async with self._units.begin() as uow:
            if await sign_in.is_known(uow, FIRST_ADMINISTRATOR):
                return
        password_hash = await self.passwords.hash(first_password)
        async with self._units.begin() as uow:
            sign_in.appoint_first(uow, password_hash)


async def _signed_in(request: Request, token: Token) -> Who:
    signing: SignIn = request.app.state.sign_in
    return await signing.who(token)


SignedIn = Annotated[Who, Depends(_signed_in)]


async def _member(who: SignedIn) -> UUID:
    if who.user_id is None:
        raise NotAllowedError(f"this is for members; {who.name} is an {who.role.value}")
    return who.user_id


async def _administrator(who: SignedIn) -> str:
    if who.role is not Role.ADMINISTRATOR:
        raise NotAllowedError(f"this is for administrators; {who.name} is a {who.role.value}")
    return who.name


Member = Annotated[UUID, Depends(_member)]
"""A parameter of routes for members: the user who is signed in. Others are refused."""
Administrator = Annotated[str, Depends(_administrator)]
"""A parameter of routes for administrators: the name of who is signed in. Others are refused."""


class NewSession(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    password: Annotated[
        str, StringConstraints(max_length=PASSWORD_LENGTH_MAX), Field(examples=["a long sentence"])
    ]


class NewPassword(BaseModel):
    model_config = ConfigDict(extra="forbid")

    current: Annotated[str, StringConstraints(max_length=PASSWORD_LENGTH_MAX)]
    new: Password


class SessionView(BaseModel):
    """Who is signed in; `user_id` is null for an administrator."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    role: Role
    user_id: UUID | None


class NewSessionView(SessionView):
    expires_at: datetime


def give_cookie(response: Response, session: Session, *, secure: bool) -> None:
    """Have the browser keep who is signed in: scripts cannot read it, and other sites' pages do not send it."""
    response.set_cookie(
        COOKIE,
        session.token,
        max_age=int(SESSION_FOR.total_seconds()),
        secure=secure,
        httponly=True,
        samesite="strict",
    )
    response.headers["cache-control"] = "no-store"


def take_cookie(response: Response, *, secure: bool) -> None:
    """Have the browser forget who is signed in."""
    response.delete_cookie(COOKIE, secure=secure, httponly=True, samesite="strict")


def add_sign_in(app: FastAPI, parts: Parts) -> SignIn:
    """The routes of the session; returns what the routes for members and administrators look at."""
    first = parts.settings.wallet_admin_password
    signing = app.state.sign_in = SignIn(parts.units, None if first is None else first.get_secret_value())
    secure = parts.settings.session_cookie_secure
    refused = problem_responses(WRONG_PASSWORD, TOO_MANY_ATTEMPTS, FOREIGN)
    needed = problem_responses(NOT_SIGNED_IN, FOREIGN)

    @app.post("/session", responses=refused)
    async def begin_session(new: NewSession, response: Response) -> NewSessionView:
        """Sign in: sets a cookie that scripts cannot read, and that other sites' pages do not send."""
        session = await signing.begin(new.name, new.password)
        give_cookie(response, session, secure=secure)
        who = session.who
        return NewSessionView(name=who.name, role=who.role, user_id=who.user_id, expires_at=session.expires_at)

    @app.get("/session", responses=needed)
    async def get_session(who: SignedIn) -> SessionView:
        """Who is signed in."""
        return SessionView.model_validate(who)

    @app.delete("/session", status_code=204, responses=needed)
    async def end_session(_who: SignedIn, token: Token, response: Response) -> None:
        """Sign out."""
        assert token is not None, "who is signed in has a token"
        await signing.end(token)
        take_cookie(response, secure=secure)

    @app.put(
        "/session/password",
        status_code=204,
        responses=problem_responses(NOT_SIGNED_IN, WRONG_PASSWORD, TOO_MANY_ATTEMPTS, FOREIGN),
    )
    async def change_password(new: NewPassword, who: SignedIn) -> None:
        """Have another password; all sessions of this name end."""
        await signing.change_password(who, new.current, new.new)

    return signing
