"""Pages of a list: their size, the rows of one, and the opaque cursor that continues after it."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final, TypeVar
from uuid import UUID

from pydantic import Field

from shared.http.problems import InvalidRequestError

PAGE_SIZE: Final = 50
PAGE_SIZE_MAX: Final = 500
Cursor = Annotated[str, Field(description="`next_cursor` of the page before.")]
"""A parameter that says where a page begins; its default is empty: at the list's beginning."""
PageSize = Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)]
"""A parameter that says how long a page is; its default is `PAGE_SIZE`."""
_CURSOR_LENGTH_MAX = 64
_SEQUENCE_MAX = 2**63 - 1

RowT = TypeVar("RowT")


async def page_of(
    fetch: Callable[[int], Awaitable[Sequence[RowT]]], limit: int, position: Callable[[RowT], object]
) -> tuple[Sequence[RowT], str | None]:
    """The rows of a page of at most `limit`, and the cursor that continues after them, None at the list's end.

    `fetch` gets at most as many rows as it is told: one more than the page has, to know whether there are more.
    `position` is what the cursor holds of a row.
    """
    rows = await fetch(limit + 1)
    page = rows[:limit]
    return page, encode_cursor(str(position(page[-1]))) if len(rows) > limit else None


def encode_cursor(position: str) -> str:
    """The opaque cursor that continues after `position`."""
    return base64.urlsafe_b64encode(position.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> str:
    """What `encode_cursor` was given. Raises `InvalidRequestError` (422) for anything else."""
    if len(cursor) > _CURSOR_LENGTH_MAX:
        raise _bad_cursor()
    padding = "=" * (-len(cursor) % 4)
    try:
        return base64.b64decode(cursor + padding, "-_", validate=True).decode("ascii")
    except ValueError:
        raise _bad_cursor() from None


def decode_sequence(cursor: str) -> int:
    """The sequence number that a cursor stands for: one that a bigint column can hold.

    Raises `InvalidRequestError`.
    """
    position = decode_cursor(cursor)
    if not position.isdecimal() or not 0 < int(position) <= _SEQUENCE_MAX:
        raise _bad_cursor()
    return int(position)


def decode_id(cursor: str) -> UUID:
    """The id that a cursor stands for. Raises `InvalidRequestError`."""
    try:
        return UUID(decode_cursor(cursor))
    except ValueError:
        raise _bad_cursor() from None


def _bad_cursor() -> InvalidRequestError:
    return InvalidRequestError(["query", "cursor"], "not a cursor that this service gave out")
