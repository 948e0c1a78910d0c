"""Times as clients send them: RFC 3339 with an offset, in an era that PostgreSQL and every client can tell."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator


def _not_a_number(value: object) -> object:
    """Refuse a number, which Pydantic would take for seconds since 1970."""
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value
    raise ValueError("a time as in RFC 3339, such as 2026-07-13T12:00:00Z")


def _in_this_era(time: datetime) -> datetime:
    if not 1970 <= time.year < 9_000:
        raise ValueError("a time between the years 1970 and 9000")
    return time


Timestamp = Annotated[AwareDatetime, BeforeValidator(_not_a_number), AfterValidator(_in_this_era)]
"""A point in time with its offset, of a request."""
