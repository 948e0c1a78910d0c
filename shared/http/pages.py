"""Pages of a list: sizes and opaque cursors."""

from __future__ import annotations

import base64
from typing import Final

from shared.http.problems import InvalidRequestError

PAGE_SIZE: Final = 50


PAGE_SIZE_MAX: Final = 500


_CURSOR_LENGTH_MAX = 64


_SEQUENCE_MAX = 2**63 - 1


def encode_cursor(position: str) -> str:
    """The opaque cursor that continues after `position`."""
    return base64.urlsafe_b64encode(position.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> str:
    """What `encode_cursor` was given. Raises `InvalidRequestError` (422) for anything else."""
    if len(cursor) > _CURSOR_LENGTH_MAX:
        raise bad_cursor()
    padding = "=" * (-len(cursor) % 4)
    try:
        return base64.b64decode(cursor + padding, "-_", validate=True).decode("ascii")
    except ValueError:
        raise bad_cursor() from None


def decode_sequence(cursor: str) -> int:
    """The sequence number that a cursor stands for: one that a bigint column can hold. Raises
    `InvalidRequestError`."""
    position = decode_cursor(cursor)
    if not position.isdecimal() or not 0 < int(position) <= _SEQUENCE_MAX:
        raise bad_cursor()
    return int(position)


def bad_cursor() -> InvalidRequestError:
    return InvalidRequestError(["query", "cursor"], "not a cursor that this service gave out")
