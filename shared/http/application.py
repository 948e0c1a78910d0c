"""The HTTP application of a service: one recipe, to which the service adds its routes.

Every service's application tells errors as problem documents, checks bodies, describes itself at `/openapi.json`
and `/docs`, and gives every request a span. Its probes and its lifespan come from the process that serves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Header
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, StringConstraints
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from shared import __version__
from shared.http import problems
from shared.http.backpressure import Backpressure, OutboxGate
from shared.http.bodies import JsonBodies
from shared.http.docs import add_docs
from shared.http.errors import UnexpectedErrors, answer_errors
from shared.http.idempotency import KEY_DESCRIPTION, KEY_PATTERN, KEY_REUSED, KeyReusedError, check_key
from shared.http.openapi import add_problem_schema, problem_responses
from shared.http.problems import ProblemKind
from shared.http.short_way import ShortWay
from shared.telemetry import Telemetry

IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(pattern=KEY_PATTERN)] | None,
    BeforeValidator(check_key),
    Header(alias="Idempotency-Key", description=KEY_DESCRIPTION),
]
"""A route's parameter for the header of that name; None where the client sent none."""


def service_app(
    *,
    title: str,
    description: str,
    telemetry: Telemetry,
    errors: Mapping[type[Exception], ProblemKind] | None = None,
    takes_bodies: bool = True,
    outbox_gate: OutboxGate | None = None,
    forms_under: str | None = None,
) -> FastAPI:
    """A service's application, without its routes.

    `errors` says which error of the service's domain is which kind of problem. `takes_bodies` is False where
    every route only reads. With an `outbox_gate`, whatever may change state is turned away while too many events
    wait to be published. `forms_under` is the path of pages for people, which send forms and not JSON.
    """
    answers = [problems.INVALID, problems.UNEXPECTED, problems.UNAVAILABLE]
    if takes_bodies:
        answers = [problems.TOO_LARGE, problems.UNSUPPORTED, *answers]
    if outbox_gate is not None:
        answers.append(problems.OUTBOX_FULL)
    app = _Application(
        title=title,
        version=__version__,
        description=description,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        responses=problem_responses(*answers),
        telemetry={"tracing": False, "metrics": False, "logs": False},  # which is `Telemetry`'s here
    )
    app.outbox_gate = outbox_gate
    app.router.route_class = _ReadableRoute
    answer_errors(app, RequestValidationError, {KeyReusedError: KEY_REUSED, **(errors or {})}, forms_under)
    if outbox_gate is not None:
        app.add_middleware(Backpressure, gate=outbox_gate)
    add_docs(app)
    telemetry.instrument_http(app)
    return app


class _Application(FastAPI):
    """FastAPI, whose OpenAPI document also has the schema of problem documents, and which has a short way."""

    outbox_gate: OutboxGate | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.middleware_stack is not None and not self.root_path:
            scope["app"] = self
            await self.middleware_stack(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        ordinary = super().build_middleware_stack()
        if {layer.cls for layer in self.user_middleware} <= {Backpressure, JsonBodies, UnexpectedErrors}:
            return ShortWay(self, ordinary, self.outbox_gate)
        return ordinary  # the short way leads past layers that it does not know

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            add_problem_schema(super().openapi())
        assert self.openapi_schema is not None
        return self.openapi_schema


class _ReadableRoute(APIRoute):
    """A route that answers HEAD wherever it answers GET (RFC 9110, 9.1), which FastAPI's own does not.

    The request stays a HEAD, so that the server leaves out the body and traces tell the truth. HEAD is not among
    the route's methods: the OpenAPI document would have each operation twice.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches({**scope, "method": "GET"} if self._is_head(scope) else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if self._is_head(scope) else super().handle)(scope, receive, send)

    def _is_head(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] == "HEAD" and "GET" in (self.methods or ())
