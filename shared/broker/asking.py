"""What a request and a reply have on both brokers, beside the message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

TIMEOUT_MS = "tandem-timeout-ms"
"""Header of a request: so many milliseconds after the broker took it, it must not be begun any more."""
TIMEOUT_S_MAX = 600.0
"""The longest that anybody may be waited for."""
_MILLISECONDS = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came to this process's reply address, from whomever; `correlation_id` says which request it answers."""

    correlation_id: str
    body: bytes


def timeout_header(timeout_s: float) -> str:
    """Raises `ValueError` for a time of nothing, or over `TIMEOUT_S_MAX`."""
    if not 0.001 <= timeout_s <= TIMEOUT_S_MAX:
        raise ValueError(f"a time of {timeout_s:g} s to answer in is not between 0.001 and {TIMEOUT_S_MAX:g}")
    return str(int(timeout_s * 1_000))


def timeout_s_of(headers: Mapping[str, str]) -> float | None:
    """Within how many seconds a request may be begun; None: it says nothing of that, and is none."""
    told = headers.get(TIMEOUT_MS, "")
    return min(int(told) / 1_000, TIMEOUT_S_MAX) if _MILLISECONDS.fullmatch(told) else None
