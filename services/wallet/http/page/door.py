"""Who is at the page: signing in and out by a form, and what is shown to whoever may not use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from uuid import UUID

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from services.wallet.domain.sign_in import (
    NotAllowedError,
    NotSignedInError,
    TooManyAttemptsError,
    WrongPasswordError,
)
from services.wallet.http.page.forms import read_form
from services.wallet.http.page.views import Views, is_part, path_of
from services.wallet.http.problems import NOT_ALLOWED, PROBLEMS
from services.wallet.http.sign_in import COOKIE, NewSession, SignIn, give_cookie, take_cookie
from shared.errors import TransientError
from shared.http.problems import UNAVAILABLE

View = Callable[[Request], Awaitable[Response]]


class Door:
    """Lets members in. `secure` has the cookie sent over HTTPS alone."""

    def __init__(self, signing: SignIn, views: Views, *, secure: bool) -> None:
        self._signing = signing
        self._views = views
        self._secure = secure

    async def who(self, request: Request) -> tuple[UUID, str]:
        """The user who is signed in, and with what name. Raises `NotSignedInError` and `NotAllowedError`."""
        who = await self._signing.who(request.cookies.get(COOKIE))
        if who.user_id is None:
            raise NotAllowedError("the page is for members")
        return who.user_id, who.name

    def guarded(self, view: View) -> View:
        """The view; where it refuses who asks, or a server is away, that is a page too."""

        async def answer(request: Request) -> Response:
            try:
                return await view(request)
            except NotSignedInError:
                response = self._sign_in_form(request)
                if is_part(request):
                    response.headers["hx-redirect"] = f"{path_of(request)}?ended=1"
                return response
            except NotAllowedError:
                return self._views.render(request, "not_a_member.html", status=NOT_ALLOWED.status)
            except TransientError:
                if is_part(request):
                    raise  # the page stays as it is, and its script says so
                away = UNAVAILABLE
                return self._views.render(
                    request, "away.html", status=away.status, retry_after_s=away.retry_after_s
                )

        return answer

    async def sign_in(self, request: Request) -> Response:
        fields = await read_form(request)
        name = fields.get("name", "").strip().lower()
        try:
            new = NewSession.model_validate({"name": name, "password": fields.get("password", "")})
            session = await self._signing.begin(new.name, new.password)
        except (ValidationError, WrongPasswordError):
            return self._sign_in_form(request, name[:64], "The name or the password is wrong.")
        except TooManyAttemptsError as error:
            wait = "There were too many wrong passwords for this name. Wait five minutes, and try again."
            return self._sign_in_form(request, name, wait, type(error))
        response = RedirectResponse(path_of(request), HTTPStatus.SEE_OTHER)
        give_cookie(response, session, secure=self._secure)
        return response

    async def sign_out(self, request: Request) -> Response:
        token = request.cookies.get(COOKIE)
        if token is not None:
            await self._signing.end(token)
        response = RedirectResponse(path_of(request), HTTPStatus.SEE_OTHER)
        take_cookie(response, secure=self._secure)
        return response

    def _sign_in_form(
        self, request: Request, name: str = "", wrong: str = "", kind: type[Exception] = NotSignedInError
    ) -> Response:
        problem, ended = PROBLEMS[kind], "ended" in request.query_params or COOKIE in request.cookies
        return self._views.render(
            request,
            "sign_in.html",
            {"name": name, "wrong": wrong, "ended": ended and not wrong},
            problem.status,
            retry_after_s=problem.retry_after_s,
        )
