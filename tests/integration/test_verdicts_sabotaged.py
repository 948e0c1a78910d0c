"""A night's batch with one part broken is found out by what `make faults` checks of verdicts; a whole is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from deploy.native import Runtime
from faults.verdicts.checker import VerdictFindings, check
from faults.verdicts.found import CREATE_EFFECTS, PUT_ASIDE, read
from services.fraud import store
from services.fraud.domain import ZONE
from services.fraud.handlers import judging, nightly
from shared.errors import TransientError
from shared.jobs import Retry, leases
from tests.integration.databases import migrated_database
from tests.integration.test_fraud_service import Fraud, fraud

__all__ = ["fraud"]

ORDERS = 6
PER_CHUNK = 2
_TELL = """
insert into order_verdict (order_id, verdict) values ($1, $2)
on conflict (order_id) do update set verdict = excluded.verdict
"""
"""As the order service records what it is told."""


@dataclass
class Night:
    """Orders of yesterday, and an order service's database that is told what the batch publishes."""

    fraud: Fraud
    connection: asyncpg.Connection[Any]
    order: asyncpg.Connection[Any]
    ids: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(ORDERS)])

    async def run(self) -> VerdictFindings:
        """Have the batch run whose worker is gone once, in its second chunk; what the check says then."""
        await self.connection.execute(PUT_ASIDE, self.ids, [uuid4() for _ in range(3)])
        await self.fraud.run(nightly.day_before(datetime.now(ZONE)))
        for body in await self.connection.fetch("select body from outbox order by position"):
            told = orjson.loads(body[0])["data"]
            await self.order.execute(_TELL, UUID(told["order_id"]), told["verdict"])
        found = await read(self.order.fetch, self.connection.fetch, datetime.now(ZONE) + timedelta(minutes=1))
        return check(self.ids, found)


@pytest.fixture
async def night(fraud: Fraud, servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Night]:
    calls = 0

    def failing_once(told: Any, subject: Any, policy: Any, by: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2 * PER_CHUNK:
            raise TransientError("the worker is gone")
        judging.judge(told, subject, policy, by)

    monkeypatch.setattr(nightly.evaluate_day, "retries", Retry(3, initial_s=0.01))
    monkeypatch.setattr(nightly, "judge", failing_once)
    monkeypatch.setattr(nightly, "CHUNK_MAX", PER_CHUNK)
    async with AsyncExitStack() as stack:
        connection = await asyncpg.connect(fraud.process.parts.settings.postgres_dsn)
        stack.push_async_callback(connection.close)
        order = await asyncpg.connect(await migrated_database(servers, "order"))
        stack.push_async_callback(order.close)
        await order.execute(CREATE_EFFECTS)
        await connection.execute("truncate known_order, evaluation, outbox, job, job_step, job_edge, job_attempt")
        yield Night(fraud, connection, order)


def loses_its_cursor(patch: pytest.MonkeyPatch) -> None:
    """And nothing else keeps it from what is judged already, which is published again."""
    no_cursor = "cast(nullif(cast(:cursor as text), :cursor) as json)"
    sabotage(patch, leases, "_CHECKPOINT", "cast(:cursor as json)", no_cursor)
    unjudged = "and not exists (select from evaluation e where e.order_id = o.order_id)"
    sabotage(patch, store, "_FACTS_OF_KNOWN", unjudged, "")
    again = postgresql.insert(store.evaluation).on_conflict_do_nothing()
    patch.setattr(store, "INSERT_EVALUATION", again)


def passes_over_what_fails(patch: pytest.MonkeyPatch) -> None:
    judge = vars(nightly)["judge"]

    def judge_if_that_works(*arguments: Any) -> None:
        with suppress(TransientError):
            judge(*arguments)

    patch.setattr(nightly, "judge", judge_if_that_works)


def tells_nobody(patch: pytest.MonkeyPatch) -> None:
    judge = vars(nightly)["judge"]

    def judge_in_silence(told: Any, *arguments: Any) -> None:
        judge(SimpleNamespace(tell=told.tell, publish=lambda *_, **__: None), *arguments)

    patch.setattr(nightly, "judge", judge_in_silence)


def sabotage(patch: pytest.MonkeyPatch, module: ModuleType, name: str, sound: str, broken: str) -> None:
    """Change a statement; fails where what is to be changed is not there any more."""
    told = getattr(module, name).text
    assert sound in told, f"{name} has no {sound!r} to sabotage"
    patch.setattr(module, name, text(told.replace(sound, broken)))


async def test_a_batch_whose_worker_is_gone_in_the_middle_of_it_is_found_sound(night: Night) -> None:
    verdict = await night.run()
    assert verdict.sound, verdict
    assert (verdict.acknowledged, verdict.by_batch) == (ORDERS, ORDERS)


@pytest.mark.parametrize(
    ("broken", "kind"),
    [(loses_its_cursor, "told_twice"), (passes_over_what_fails, "unjudged"), (tells_nobody, "untold")],
)
async def test_a_broken_batch_is_found_out(
    night: Night, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], kind: str
) -> None:
    broken(monkeypatch)
    assert (await night.run()).damage()[kind]
