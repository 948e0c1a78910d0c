"""What a user is and what may happen to one. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from shared.errors import BusinessError

EMAIL_LENGTH_MAX = 254
NAME_LENGTH_MAX = 200


class UserStatus(StrEnum):
    """registered as ACTIVE → DEACTIVATED, for good."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"


class UserNotFoundError(BusinessError):
    """No user has this id."""


class IllegalStateChangeError(BusinessError):
    """The user is in a state that does not allow this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who is registered; `version` is 1 at registration and grows by 1 with every change.

    An email address identifies nobody here: two users may share one.
    """

    id: UUID
    email: str
    name: str
    status: UserStatus
    version: int
    registered_at: datetime
    updated_at: datetime


def register(user_id: UUID, email: str, name: str, now: datetime) -> User:
    return User(
        id=user_id,
        email=email,
        name=name,
        status=UserStatus.ACTIVE,
        version=1,
        registered_at=now,
        updated_at=now,
    )


def update_profile(user: User, email: str | None, name: str | None, now: datetime) -> User:
    """The user with what is given changed: the same object when nothing changes.

    Raises `IllegalStateChangeError` for a deactivated user.
    """
    _require_active(user, "changed")
    email = user.email if email is None else email
    name = user.name if name is None else name
    if (email, name) == (user.email, user.name):
        return user
    return replace(user, email=email, name=name, version=user.version + 1, updated_at=now)


def deactivate(user: User, now: datetime) -> User:
    """The user after the deactivation. Raises `IllegalStateChangeError` for one who is deactivated already."""
    _require_active(user, "deactivated")
    return replace(user, status=UserStatus.DEACTIVATED, version=user.version + 1, updated_at=now)


def _require_active(user: User, change: str) -> None:
    if user.status is not UserStatus.ACTIVE:
        raise IllegalStateChangeError(f"user {user.id} is {user.status.value} and cannot be {change}")
