"""The jobs service's own jobs, the kinds that one can ask for, and what one can ask about them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import RowMapping

from services.jobs import domain
from services.jobs.events import JobStepReady
from shared.jobs import JobContext, Jobs, Result, Signature, chain, control, group, job, reading
from shared.jobs.archive import HISTORY, Archive
from shared.jobs.schedules import NONE, Every, Schedule, Schedules
from shared.process import Parts
from shared.publishing import Submitted, UnitOfWork
from shared.settings import Settings

_REPORT_INTERVAL_S = 1.0


@job(leased=True, queue="io", soft_s=domain.STOPPED_AFTER_S)
async def add(a: int, b: int, ctx: JobContext, seconds: float = 0.0) -> int:
    """The sum, for which it is at work for so many seconds, and says how far it is."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while (left_s := began_at + seconds - loop.time()) > 0:
        ctx.report(seconds - left_s, seconds, f"adding {a} and {b}")
        await asyncio.sleep(min(left_s, _REPORT_INTERVAL_S))
    return a + b


@job
def multiply(a: int, b: int) -> int:
    """The product."""
    return a * b


@job(name="sum-and-multiply")
def sum_and_multiply(total: int, numbers: list[int]) -> list[int]:
    """Each of the numbers times their sum, which comes from the step before."""
    return domain.products_with_sum(total, numbers)


@job(name="health-check")
def health_check() -> None:
    """Nothing: that it has succeeded says that jobs run."""


HEALTH_CHECKS_KEPT_S = 86_400.0
"""One every ten seconds is 8,640 a day; those that failed are kept as long as other jobs."""
ARCHIVE = Archive("jobs", HISTORY)
JOBS = Jobs(
    JobStepReady,
    add,
    multiply,
    sum_and_multiply,
    health_check,
    kept_s={"health-check": HEALTH_CHECKS_KEPT_S},
    archive=ARCHIVE,
)
SUBSCRIBERS = (JOBS.subscriber("jobs"),)


def schedules(settings: Settings) -> Schedules:
    """The schedules of the jobs service."""
    archive = ARCHIVE.schedules(settings)
    if not settings.health_check_job_s:
        return Schedules(*archive)
    every = Every(settings.health_check_job_s)
    check = Schedule("health-check", every, lambda _due: health_check.s(), made_up=NONE, overlap="skip")
    return Schedules(check, *archive)


async def keep_firing(parts: Parts) -> None:
    """Fire the schedules, as long as the process runs."""
    await schedules(parts.settings).keep_firing(parts)


# -- kinds

Number = Annotated[int, Field(strict=True, ge=-domain.NUMBER_MAX, le=domain.NUMBER_MAX, examples=[45])]
Seconds = Annotated[
    float,
    Field(
        ge=0,
        le=domain.SECONDS_MAX,
        description="How long each step takes, as if it were long: a sum is at work, the others wait before it.",
    ),
]

BodySeconds = Annotated[Seconds, Field(strict=True)]


class TwoNumbers(BaseModel):
    """What is calculated with."""

    model_config = ConfigDict(extra="forbid")

    a: Number
    b: Number


class Add(TwoNumbers):
    seconds: BodySeconds = domain.ADD_SECONDS


class Multiply(TwoNumbers):
    seconds: BodySeconds = domain.MULTIPLY_SECONDS


class SumAndMultiply(TwoNumbers):
    seconds: BodySeconds = domain.MULTIPLY_SECONDS


ArgsT = TypeVar("ArgsT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Kind(Generic[ArgsT]):
    """What can be asked for under a name: its arguments, and the graph that they make."""

    args: type[ArgsT]
    graph: Callable[[ArgsT], Signature]


def sum_then_products(args: TwoNumbers, seconds: float) -> Signature:
    """The sum, then each number times it."""
    return chain(add.s(args.a, args.b, seconds=seconds), then=sum_and_multiply.s([args.a, args.b]).after(seconds))


def sum_beside_product(args: TwoNumbers, add_s: float, multiply_s: float) -> Signature:
    """The sum and the product, side by side."""
    return group(add.s(args.a, args.b, seconds=add_s), multiply.s(args.a, args.b).after(multiply_s))


KINDS: Mapping[str, Kind[Any]] = {
    "add": Kind(Add, lambda args: add.s(args.a, args.b, seconds=args.seconds)),
    "multiply": Kind(Multiply, lambda args: multiply.s(args.a, args.b).after(args.seconds)),
    "sum-and-multiply": Kind(SumAndMultiply, lambda args: sum_then_products(args, args.seconds)),
}


# -- use cases


async def submit(uow: UnitOfWork, kind: str, graph: Signature) -> Submitted:
    """Submit a job of a kind."""
    return await uow.submit(graph, kind=kind)


async def get_job(uow: UnitOfWork, job_id: UUID) -> RowMapping:
    """The job's row. Raises `JobNotFoundError`."""
    return await reading.find_job(uow.reads, job_id)


async def get_result(uow: UnitOfWork, task_id: UUID) -> Result:
    """The result of a job, or of a step of one. Raises `JobNotFoundError`."""
    return await reading.result_of(uow.reads, task_id)


async def cancel_job(uow: UnitOfWork, job_id: UUID) -> RowMapping:
    """Cancel a job. Raises `JobNotFoundError`, `JobStateError`."""
    await control.cancel(uow, job_id)
    return await get_job(uow, job_id)


async def retry_job(uow: UnitOfWork, job_id: UUID) -> RowMapping:
    """Have a failed or cancelled job go on. Raises `JobNotFoundError`, `JobStateError`."""
    await control.retry(uow, job_id, JOBS.batch(uow))
    return await get_job(uow, job_id)
