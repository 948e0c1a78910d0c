"""What a handler may ask for besides its arguments: which step it is, and the transaction it runs in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.publishing import UnitOfWork


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt of one step, given to the parameter of this type. `attempt` counts from 1.

    `due_at` is when the job was due: for that of a schedule its logical date, however late it runs.
    """

    job_id: UUID
    step_id: UUID
    attempt: int
    due_at: datetime
    unit: UnitOfWork | None = None

    @property
    def uow(self) -> UnitOfWork:
        """The unit of work that completes the step: what is told to it takes effect exactly if the step does.

        Raises `RuntimeError` in a leased step, which runs in no transaction.
        """
        if self.unit is None:
            raise RuntimeError("a leased step runs in no transaction")
        return self.unit

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of this step and in no other's: for mail, payments and the like."""
        return str(self.step_id)
