"""The rules of a user."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.user import domain
from services.user.domain import User, UserStatus

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def ada() -> User:
    return domain.register(UUID("0198c0de-0000-7000-8000-00000000000a"), "ada@example.org", "Ada", NOW)


def test_a_new_user_is_active_with_version_1() -> None:
    user = ada()
    assert (user.id, user.email, user.name) == (
        UUID("0198c0de-0000-7000-8000-00000000000a"),
        "ada@example.org",
        "Ada",
    )
    assert (user.status, user.version, user.registered_at, user.updated_at) == (UserStatus.ACTIVE, 1, NOW, NOW)


def test_what_is_not_given_stays() -> None:
    renamed = domain.update_profile(ada(), None, "Ada Lovelace", LATER)
    assert (renamed.email, renamed.name, renamed.version) == ("ada@example.org", "Ada Lovelace", 2)
    moved = domain.update_profile(renamed, "ada@example.com", None, LATER)
    assert (moved.email, moved.name, moved.version, moved.updated_at) == (
        "ada@example.com",
        "Ada Lovelace",
        3,
        LATER,
    )


def test_an_update_that_changes_nothing_is_no_new_version() -> None:
    user = ada()
    assert domain.update_profile(user, "ada@example.org", "Ada", LATER) is user


def test_deactivation_is_for_good() -> None:
    gone = domain.deactivate(ada(), LATER)
    assert (gone.status, gone.version, gone.updated_at) == (UserStatus.DEACTIVATED, 2, LATER)
    with pytest.raises(
        domain.IllegalStateChangeError, match=f"{gone.id} is deactivated and cannot be deactivated$"
    ):
        domain.deactivate(gone, LATER)
    with pytest.raises(domain.IllegalStateChangeError, match=f"{gone.id} is deactivated and cannot be changed$"):
        domain.update_profile(gone, None, "Ada", LATER)
