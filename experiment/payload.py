"""Makes events larger: writes the note of an order, half of which cannot be compressed."""

from __future__ import annotations

import random
from base64 import b64encode

_PHRASE = "Please leave the parcel with a neighbour. "


def note(size: int, seed: str) -> str | None:
    """A text of `size` ASCII characters, the same for the same seed; None for 0.

    The first half is random letters, in which nothing comes twice; the other half says one thing again and again.
    """
    if not size:
        return None
    letters = (size + 1) // 2
    drawn = random.Random(seed).randbytes(letters)  # noqa: S311 - load, not secrets
    repeated = size - letters
    return b64encode(drawn).decode()[:letters] + (_PHRASE * (repeated // len(_PHRASE) + 1))[:repeated]
