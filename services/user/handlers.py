"""The use cases of this service. It handles no events."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from services.user import domain, store
from services.user.domain import User, UserNotFoundError
from services.user.events import UserDeactivated, UserProfileUpdated, UserRegistered
from shared.publishing import UnitOfWork


async def register_user(uow: UnitOfWork, email: str, name: str) -> User:
    user = domain.register(uuid7(), email, name, datetime.now(UTC))
    uow.tell(store.INSERT_USER, store.inserted(user))
    uow.publish(UserRegistered.of(user), subject=str(user.id))
    return user


async def get_user(uow: UnitOfWork, user_id: UUID) -> User:
    """The user. Raises `UserNotFoundError`."""
    return _found(await store.find_user(uow.reads, user_id), user_id)


async def update_profile(uow: UnitOfWork, user_id: UUID, email: str | None, name: str | None) -> User:
    """Change what is given of a profile; nothing is published when nothing changes.

    Raises `UserNotFoundError` and `IllegalStateChangeError`.
    """
    user = _found(await store.find_user(uow.connection, user_id, lock=True), user_id)
    updated = domain.update_profile(user, email, name, datetime.now(UTC))
    if updated is not user:
        uow.tell(store.UPDATE_USER, store.changed(updated))
        uow.publish(UserProfileUpdated.of(updated), subject=str(user_id))
    return updated


async def deactivate_user(uow: UnitOfWork, user_id: UUID) -> User:
    """Deactivate the user, for good. Raises `UserNotFoundError` and `IllegalStateChangeError`."""
    user = _found(await store.find_user(uow.connection, user_id, lock=True), user_id)
    deactivated = domain.deactivate(user, datetime.now(UTC))
    uow.tell(store.UPDATE_USER, store.changed(deactivated))
    uow.publish(UserDeactivated.of(deactivated), subject=str(user_id))
    return deactivated


def _found(user: User | None, user_id: UUID) -> User:
    if user is None:
        raise UserNotFoundError(f"user {user_id} does not exist")
    return user
