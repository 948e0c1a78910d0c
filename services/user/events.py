"""The events that this service publishes. It accepts none.

Each carries the user as it is after the change, so that a consumer that missed or reordered one is right again
with the next. `version` is the user's: a consumer ignores what is not newer than what it has.
"""

from __future__ import annotations

from typing import Self
from uuid import UUID

from services.user.domain import User
from shared.event import EventData


class UserEvent(EventData):
    """What all events of a user say."""

    channel = "user"

    user_id: UUID
    email: str
    name: str
    version: int

    @classmethod
    def of(cls, user: User) -> Self:
        return cls(user_id=user.id, email=user.email, name=user.name, version=user.version)


class UserRegistered(UserEvent):
    event_type = "user.registered"


class UserProfileUpdated(UserEvent):
    event_type = "user.profile_updated"


class UserDeactivated(UserEvent):
    event_type = "user.deactivated"


PUBLISHED: tuple[type[EventData], ...] = (UserRegistered, UserProfileUpdated, UserDeactivated)
