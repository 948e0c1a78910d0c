"""What is archived: whose rows, how they are read, and how they are deleted once they are stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.jobs.archive.lines import Lines


@dataclass(frozen=True, slots=True)
class Portion:
    """The rows of one object, whose lines are written.

    From when to when they are, where the next portion begins (a JSON value), and what `Source.record` is told to
    delete exactly these.
    """

    first_at: datetime
    last_at: datetime
    after: Any
    deletes: Mapping[str, Any]


Read = Callable[[AsyncConnection, datetime, Any, Lines], Awaitable[Portion | None]]
"""Writes the lines of the oldest rows from before a moment, behind `Portion.after` of the portion before it.

That is None at first. A bounded number of rows, the same as long as none changes; None where nothing is left.
"""


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of rows; `name` stands in the keys of its objects. `record` is made by `recording`."""

    name: str
    read: Read
    record: TextClause


def recording(gone: str) -> TextClause:
    """The statement that deletes a portion and writes its object down: neither is without the other.

    `gone` are common table expressions of which the last is called `gone` and has a row for each that was deleted.
    Were these not as many as the object has lines, the statement fails, and nothing is deleted: one has gone since
    it was read, or is not to go any more.
    """
    return text(
        f"""
        with {gone}
        insert into archive_object (key, source, sha256, rows, bytes, first_at, last_at)
        select cast(:key as text), cast(:source as text), cast(:sha256 as text),
               case when count(*) = cast(:rows as bigint) then count(*) end,
               cast(:bytes as bigint), cast(:first_at as timestamptz), cast(:last_at as timestamptz)
          from gone
        on conflict (key) do update set archived_at = now()
        """  # noqa: S608  nothing of anybody's but ours
    )
