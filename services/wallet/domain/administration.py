"""What administrators may do, and who did what why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shared.errors import BusinessError


class ActKind(StrEnum):
    """What an administrator did; each is recorded with who and why."""

    SET_ACCOUNT_TYPE = "set_account_type"
    OPEN_ACCOUNT = "open_account"
    ADJUST = "adjust"
    FREEZE = "freeze"
    THAW = "thaw"
    SET_ACCOUNT_LIMITS = "set_account_limits"
    GRANT_EXCEPTION = "grant_exception"
    SET_USER_LIMITS = "set_user_limits"
    SET_SIGN_IN = "set_sign_in"


class UserNotFoundError(BusinessError):
    """No user with this id is known to the wallet, or not yet."""


class AccountTypeNotFoundError(BusinessError):
    """No account type has this name."""


@dataclass(frozen=True, slots=True)
class By:
    """Who does something, and why."""

    administrator: str
    reason: str
