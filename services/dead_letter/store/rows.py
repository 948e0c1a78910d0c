"""A letter as a row has it, and back: whole, or without its message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from services.dead_letter.domain import Cause, Letter, LetterKind, State
from services.dead_letter.events import Received, sent_to_json

OF_CAUSE = ("error_type", "error_message", "error_stack", "fingerprint", "attempts", "delays")
OF_LETTER = ("redrives", "tries", "due_at", "last_seen_at", "asked", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A letter as lists show it: without its message, of which a page could hold gigabytes."""

    sequence: int
    letter: Letter
    subscriber: str
    channel: str
    key: str | None
    source: str | None
    event_id: str | None
    type: str | None
    redrive_id: UUID | None

    def flat(self) -> dict[str, Any]:
        """Everything by its own name, that of the letter and of its cause as well."""
        parts = (self.letter.cause, self.letter, self)
        return {field.name: getattr(part, field.name) for part in parts for field in fields(part)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Listed):
    """A letter with everything that was kept of its message."""

    body: bytes
    headers: dict[str, str]
    sent: dict[str, Any] | None
    """`sent_to_json`."""


def letter_of(row: Mapping[Any, Any]) -> Letter:
    cause = Cause(kind=LetterKind(row["kind"]), due_at=row["due_at"], **{name: row[name] for name in OF_CAUSE})
    names = ("id", "whole", "first_seen_at", *OF_LETTER)
    return Letter(state=State(row["state"]), cause=cause, **{name: row[name] for name in names})


def listed_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    names = ("sequence", "subscriber", "channel", "key", "source", "event_id", "type", "redrive_id")
    return {"letter": letter_of(row), **{name: row[name] for name in names}}


def stored_of(row: Mapping[Any, Any]) -> Stored:
    return Stored(body=row["body"], headers=row["headers"], sent=row["sent"], **listed_of(row))


def new_row(received: Received, letter: Letter) -> dict[str, Any]:
    """The row of a letter that was not known before."""
    return {
        **_changing(letter),
        "id": letter.id,
        "subscriber": received.subscription.subscriber,
        "channel": received.subscription.channel,
        "body": received.body,
        "headers": received.headers,
        "sent": sent_to_json(received.sent),
        "key": received.key,
        "source": received.source,
        "event_id": received.event_id,
        "type": received.type,
        "whole": letter.whole,
        "first_seen_at": letter.first_seen_at,
    }


def changed(letter: Letter) -> dict[str, Any]:
    """The row for `CHANGE_LETTER`."""
    return {"letter_id": letter.id, **{f"new_{name}": value for name, value in _changing(letter).items()}}


def _changing(letter: Letter) -> dict[str, Any]:
    return {
        "kind": letter.cause.kind.value,
        "state": letter.state.value,
        **{name: getattr(letter.cause, name) for name in OF_CAUSE},
        **{name: getattr(letter, name) for name in OF_LETTER},
    }
