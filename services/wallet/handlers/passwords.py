"""What is kept of passwords, and whether one is right.

argon2id with OWASP's parameters (19 MiB, two passes). A hash costs tens of milliseconds of a core, so few are made
at once, and none in the event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from shared.errors import UnavailableError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

ResultT = TypeVar("ResultT")

_AT_ONCE: Final = 2
_WAITING_MAX: Final = 50


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher  # only where somebody signs in

    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def hash_password(password: str) -> str:
    """What is kept of a password; takes tens of milliseconds."""
    return _hasher().hash(password)


def is_right(password_hash: str | None, password: str) -> bool:
    """Whether what is kept is this password's. Without anything kept it is not, after the same time."""
    from argon2.exceptions import VerifyMismatchError

    try:
        right = _hasher().verify(password_hash or _nobodys_hash(), password)
    except VerifyMismatchError:
        return False
    return right and password_hash is not None


@cache
def _nobodys_hash() -> str:
    return hash_password(secrets.token_urlsafe())


class Passwords:
    """Hashes passwords in threads, a few at once; of one process."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """As `hash_password`. Raises `UnavailableError` when too many wait for their turn."""
        return await self._in_turn(hash_password, password)

    async def is_right(self, password_hash: str | None, password: str) -> bool:
        """As `is_right`. Raises `UnavailableError` when too many wait for their turn."""
        return await self._in_turn(is_right, password_hash, password)

    async def _in_turn(self, work: Callable[..., ResultT], *arguments: str | None) -> ResultT:
        if self._waiting >= _WAITING_MAX:
            raise UnavailableError("too many sign in at once")
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting -= 1
