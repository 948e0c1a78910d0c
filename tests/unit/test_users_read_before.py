"""What the order service remembers of users: as many as there is room for, and none that may not order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from services.order import store
from services.order.domain import KnownUser, UserDeactivatedError, UserNotKnownError

CONNECTION: Any = None
"""Nothing is asked over it."""


class Database:
    """Has users, and knows how often it was asked for one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.users: dict[UUID, KnownUser] = {}
        self.asked: list[int] = []
        monkeypatch.setattr(store, "find_user", self.find_user)

    async def find_user(self, _connection: Any, user_id: UUID) -> KnownUser | None:
        self.asked.append(user_id.int)
        return self.users.get(user_id)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return Database(monkeypatch)


async def test_a_user_is_read_once_and_again_when_it_is_forgotten(database: Database) -> None:
    known = store.Users()
    one = database.users[UUID(int=1)] = KnownUser(UUID(int=1), active=True, version=1, traceparent=None)
    assert [await known.find(CONNECTION, one.user_id) for _ in range(3)] == [one] * 3
    database.users[one.user_id] = replace(one, version=2)
    assert (await known.find(CONNECTION, one.user_id)).version == 1
    known.forget(one.user_id)
    assert (await known.find(CONNECTION, one.user_id)).version == 2
    known.forget(UUID(int=9))
    assert database.asked == [1, 1]


async def test_who_may_not_order_is_asked_for_each_time(database: Database) -> None:
    known = store.Users()
    database.users[UUID(int=2)] = KnownUser(UUID(int=2), active=False, version=1, traceparent=None)
    for _ in range(2):
        with pytest.raises(UserNotKnownError):
            await known.find(CONNECTION, UUID(int=1))
        with pytest.raises(UserDeactivatedError):
            await known.find(CONNECTION, UUID(int=2))
    assert database.asked == [1, 2, 1, 2]


async def test_the_one_read_first_is_forgotten_for_a_new_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_REMEMBERED_MAX", 2)
    known = store.Users()
    for number in (1, 2, 3):
        database.users[UUID(int=number)] = KnownUser(UUID(int=number), active=True, version=1, traceparent=None)
    for number in (1, 2, 3, 3, 2, 1):
        await known.find(CONNECTION, UUID(int=number))
    assert database.asked == [1, 2, 3, 1]
