"""Who may use the wallet: members their own accounts, administrators what stands under /admin."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared.errors import BusinessError

FIRST_ADMINISTRATOR: Final = "admin"
"""Who signs in first, with the password of the settings."""
SESSION_FOR: Final = timedelta(hours=8)
PASSWORD_LENGTH_MIN: Final = 12
PASSWORD_LENGTH_MAX: Final = 200
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class Role(StrEnum):
    MEMBER = "member"
    ADMINISTRATOR = "administrator"


class WrongPasswordError(BusinessError):
    """Nobody of this name has this password; which of the two is wrong is not said."""


class TooManyAttemptsError(BusinessError):
    """After wrong passwords this name has to wait."""


class NotSignedInError(BusinessError):
    """There is no session, or it is over, or its user is deactivated."""


class NotAllowedError(BusinessError):
    """Who is signed in has another role than this wants."""


class NameTakenError(BusinessError):
    """Somebody else signs in with this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who is signed in; `user_id` is None for an administrator."""

    name: str
    role: Role
    user_id: UUID | None


@dataclass(frozen=True, slots=True)
class Session:
    """A session that has just begun; `token` is its secret, of which the wallet keeps a hash."""

    who: Who
    token: str
    expires_at: datetime
