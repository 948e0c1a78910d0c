"""The HTTP of the user service: what it accepts, shows and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.requests import Request
from starlette.responses import Response

from services.user import domain, handlers
from services.user.domain import User, UserStatus
from shared.http.application import IdempotencyKey, service_app
from shared.http.idempotency import KEY_REUSED, Answer, answer_once
from shared.http.openapi import problem_responses
from shared.http.problems import ProblemKind
from shared.outside.mail_headers import written_address
from shared.process import Parts
from shared.publishing import UnitOfWork

USER_ID = "0198c0de-0000-7000-8000-00000000000a"

NOT_FOUND = ProblemKind(404, "user-not-found", "No such user", example=f"user {USER_ID} does not exist")
ILLEGAL = ProblemKind(
    409,
    "illegal-state-change",
    "The user's state does not allow this",
    example=f"user {USER_ID} is deactivated and cannot be changed",
)
PROBLEMS: dict[type[Exception], ProblemKind] = {
    domain.UserNotFoundError: NOT_FOUND,
    domain.IllegalStateChangeError: ILLEGAL,
}

_LOCAL_PART = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"


def _can_be_mailed_to(email: str) -> str:
    try:
        written_address(email)
    except ValueError as error:
        raise ValueError(f"no mail can be sent there: {error}") from error
    return email


Email = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        max_length=domain.EMAIL_LENGTH_MAX,
        pattern=rf"^{_LOCAL_PART}@{_LABEL}(\.{_LABEL})+$",
    ),
    AfterValidator(_can_be_mailed_to),
    Field(
        description="As the HTML standard writes it, with a dot in the domain. One with dots in odd places must "
        "not be too long for a mail once it is quoted.",
        examples=["ada@example.org"],
    ),
]
# No control characters: PostgreSQL takes no NUL, and nobody is called by the others. Blanks at its ends are taken
# away, so one other character has to be there; \x85 is a blank to us, but not to every reader of the pattern.
Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        min_length=1,
        max_length=domain.NAME_LENGTH_MAX,
        pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f\x85][^\x00-\x1f\x7f]*$",
    ),
    Field(examples=["Ada Lovelace"]),
]


class NewUser(BaseModel):
    """Who registers. Two users may have the same address."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"email": "ada@example.org", "name": "Ada Lovelace"}]}
    )

    email: Email
    name: Name


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]  # stands for "absent"; a client cannot send it


class ProfileChange(BaseModel):
    """What changes; what is absent stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    email: Email = Field(default="", json_schema_extra=_without_default)
    name: Name = Field(default="", json_schema_extra=_without_default)

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give an email or a name")
        return self


class UserView(BaseModel):
    """A user as the API shows it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(examples=[USER_ID])
    email: str = Field(examples=["ada@example.org"])  # as it was registered, whatever is accepted today
    name: Name
    status: UserStatus
    version: int = Field(description="1 at registration, 1 more with every change.", examples=[1])
    registered_at: datetime
    updated_at: datetime


def answer(status: int, user: User, *, created: bool = False) -> Answer:
    body = UserView.model_validate(user).model_dump_json().encode()
    return Answer(status, body, f"/users/{user.id}" if created else None)


def create_app(parts: Parts) -> FastAPI:
    """The user service's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem user service",
        description="Registers users and tells the other services about them.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
        outbox_gate=parts.outbox_gate,
    )
    add_routes(app, parts)
    return app


def add_routes(app: FastAPI, parts: Parts) -> None:
    units = parts.units
    created: dict[str, Any] = {"status_code": 201, "response_model": UserView}

    @app.post("/users", **created, responses=problem_responses(KEY_REUSED))
    async def register_user(new: NewUser, request: Request, key: IdempotencyKey = None) -> Response:
        """Register a user; publishes `user.registered`."""

        async def work(uow: UnitOfWork) -> Answer:
            return answer(201, await handlers.register_user(uow, new.email, new.name), created=True)

        return await answer_once(units, request, key, work)

    @app.get("/users/{user_id}", responses=problem_responses(NOT_FOUND))
    async def get_user(user_id: UUID) -> UserView:
        async with units.begin() as uow:
            return UserView.model_validate(await handlers.get_user(uow, user_id))

    @app.patch(
        "/users/{user_id}",
        response_model=UserView,
        responses=problem_responses(NOT_FOUND, ILLEGAL, KEY_REUSED),
    )
    async def update_profile(
        user_id: UUID, change: ProfileChange, request: Request, key: IdempotencyKey = None
    ) -> Response:
        """Change the profile; publishes `user.profile_updated` if that changes anything."""

        async def work(uow: UnitOfWork) -> Answer:
            changed = await handlers.update_profile(uow, user_id, change.email or None, change.name or None)
            return answer(200, changed)

        return await answer_once(units, request, key, work)

    @app.post(
        "/users/{user_id}/deactivate",
        response_model=UserView,
        responses=problem_responses(NOT_FOUND, ILLEGAL, KEY_REUSED),
    )
    async def deactivate_user(user_id: UUID, request: Request, key: IdempotencyKey = None) -> Response:
        """Deactivate the user, for good; publishes `user.deactivated`."""

        async def work(uow: UnitOfWork) -> Answer:
            return answer(200, await handlers.deactivate_user(uow, user_id))

        return await answer_once(units, request, key, work)
