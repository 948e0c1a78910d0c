"""Writes changes of users, drawn by a Zipf law, through the user service's own domain and outbox.

Of orders a key has two events at most; a user has as many as he has changes. So a backlog of these has hot keys.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from experiment.clock import Clock
from experiment.ledger import Entry
from experiment.schedule import drawn_users
from services.user import domain, store
from services.user.events import UserProfileUpdated
from shared.publishing import UnitOfWork


async def write_changes(
    uow: UnitOfWork, users: Sequence[str], skew: float, *, count: int, phase: str, seed: str, clock: Clock
) -> list[Entry]:
    """Change users so many times in one transaction; returns the entries of these events, to be acknowledged."""
    now, entries = datetime.now(UTC), list[Entry]()
    changed: dict[int, domain.User] = {}
    for number, which in enumerate(drawn_users(random.Random(seed), len(users), skew, count)):  # noqa: S311
        user = changed.get(which) or await store.find_user(uow.connection, UUID(users[which]), lock=True)
        assert user is not None, f"user {users[which]} is not registered"
        changed[which] = user = domain.update_profile(user, None, f"Change {phase} {number}", now)
        event = uow.publish(UserProfileUpdated.of(user), subject=str(user.id))
        now_s = clock.now_s()
        entries.append(
            Entry(
                phase,
                UserProfileUpdated.event_type,
                now_s,
                key=str(user.id),
                sequence=user.version,
                sent_s=now_s,
                event_id=event.id,
            )
        )
    for user in changed.values():  # as many requests would have left it
        uow.tell(store.UPDATE_USER, store.changed(user))
    await uow.flush()
    return entries
