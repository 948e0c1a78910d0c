"""What a leased step tells: it runs in no transaction, and this is carried out in the one that completes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Executable

from shared.event import EventData
from shared.publishing import Cause, UnitOfWork


@dataclass(frozen=True, slots=True)
class Told:
    """A statement and its row, as for `UnitOfWork.tell`."""

    statement: Executable
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """An event, as for `UnitOfWork.publish`."""

    data: EventData
    subject: str
    key: str | None


Effect = Told | Published


@dataclass(slots=True)
class Effects:
    """What a step has told since its last checkpoint, in order."""

    told: list[Effect] = field(default_factory=list)

    def tell(self, statement: Executable, row: Mapping[str, Any]) -> None:
        """As `UnitOfWork.tell`."""
        self.told.append(Told(statement, row))

    def publish(self, data: EventData, *, subject: str, key: str | None = None) -> None:
        """As `UnitOfWork.publish`."""
        self.told.append(Published(data, subject, key))

    def take(self) -> list[Effect]:
        """What was told, which is told no more."""
        told, self.told = self.told, []
        return told


def carry_out(effects: Sequence[Effect], uow: UnitOfWork, cause: Cause) -> None:
    """Tell `uow` all of it; events follow from `cause`. Raises `EventTooLargeError`."""
    for effect in effects:
        if isinstance(effect, Told):
            uow.tell(effect.statement, effect.row)
        else:
            uow.publish(effect.data, subject=effect.subject, key=effect.key, cause=cause)
