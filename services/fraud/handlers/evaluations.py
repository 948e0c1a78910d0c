"""What one asks of evaluations and of the list."""

from __future__ import annotations

from uuid import UUID

from services.fraud import store
from services.fraud.domain import EvaluationNotFoundError, Verdict
from services.fraud.store import Evaluated, ThreatList
from shared.publishing import UnitOfWork


async def get_evaluation(uow: UnitOfWork, order_id: UUID) -> Evaluated:
    """The evaluation of an order. Raises `EvaluationNotFoundError`."""
    found = await store.find_evaluation(uow.reads, order_id)
    if found is None:
        raise EvaluationNotFoundError(f"order {order_id} is not evaluated, or not yet")
    return found


async def list_evaluations(
    uow: UnitOfWork, verdict: Verdict | None, before: int | None, page_size: int
) -> list[Evaluated]:
    """Evaluations, of one verdict where it is said, newest first."""
    return await store.list_evaluations(uow.reads, verdict, before, page_size)


async def get_list(uow: UnitOfWork) -> ThreatList | None:
    """The threat-intelligence list that is in force, once one was fetched."""
    return await store.find_list(uow.reads)
