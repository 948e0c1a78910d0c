"""Problem details (RFC 9457): what an error of the HTTP looks like from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import orjson
import structlog
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import Scope

from shared.telemetry import current_trace_ids

BODY_BYTES_MAX: Final = 1_000_000
"""Largest request body in bytes; what is longer is refused while it is still arriving."""
MEDIA_TYPE: Final = "application/problem+json"

log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """One thing wrong with a request."""

    location: list[str | int] = Field(examples=[["body", "lines", 0, "quantity"]])
    message: str = Field(examples=["Input should be less than or equal to 1000"])


class ProblemDocument(BaseModel):
    """An error as RFC 9457 problem details; `errors` only where a request was invalid."""

    type: str = Field(description="A URN that names the kind of problem; `about:blank`: what the status says.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path of the request.")
    trace_id: str | None = Field(None, description="Where to look in traces and logs.")
    errors: list[FieldError] | None = None


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What a kind of error looks like from outside. Without a `slug` its type and title are the status's."""

    status: int
    slug: str | None = None
    title: str | None = None
    retry_after_s: int | None = None
    example: str = ""

    @property
    def type(self) -> str:
        return f"urn:tandem:problem:{self.slug}" if self.slug else "about:blank"

    def document(self, detail: str, instance: str, errors: Sequence[FieldError] = ()) -> dict[str, Any]:
        document = ProblemDocument(
            type=self.type,
            title=self.title or HTTPStatus(self.status).phrase,
            status=self.status,
            detail=detail,
            instance=instance,
            trace_id=current_trace_ids().get("trace_id"),
            errors=list(errors) or None,
        )
        return document.model_dump(exclude_none=True)


NOT_FOUND = ProblemKind(404, example="order 0198c0de-0000-7000-8000-000000000000 does not exist")
TOO_LARGE = ProblemKind(
    413, title="Content Too Large", example=f"the body is over the {BODY_BYTES_MAX} bytes allowed"
)
UNSUPPORTED = ProblemKind(415, example="the body must be application/json, encoded in UTF-8")
INVALID = ProblemKind(
    422, "invalid-request", "The request is invalid", example="body.name: String should have at least 1 character"
)
UNAVAILABLE = ProblemKind(503, retry_after_s=1, example="a server that is needed does not answer; try again")
OUTBOX_FULL = ProblemKind(
    503,
    "outbox-full",
    "Too many events wait to be published",
    retry_after_s=5,
    example="nothing can be changed until events that wait have been published; try again",
)
UNEXPECTED = ProblemKind(500, example="the request failed unexpectedly; the log says why")


class InvalidRequestError(Exception):
    """The request is invalid in a way that its schema cannot say; answered with 422."""

    def __init__(self, location: Sequence[str | int], message: str) -> None:
        super().__init__(message)
        self.location = location


def respond(
    scope: Scope,
    kind: ProblemKind,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response for a problem of this kind with the request of `scope`."""
    body = orjson.dumps(kind.document(detail, quote(scope["path"]), errors))
    extra = {"retry-after": str(kind.retry_after_s)} if kind.retry_after_s is not None else {}
    return Response(body, kind.status, {**(headers or {}), **extra}, MEDIA_TYPE)
