"""FastAPI in front of tasks of Celery on Redis, as a guide has it, at its best.

It is served by `uvicorn bench.contenders.celery_web:app`; `BENCH_QUEUE` names the workers' queue. What would keep
the event loop waiting (Celery's client) runs in threads; what is asked of PostgreSQL before is one statement. A
transfer is accepted by what waits in Redis for its sender, and a row; a share is waited for.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel
from redis.asyncio import Redis
from starlette.concurrency import run_in_threadpool

from bench.contenders import celery_receive, celery_transfers
from bench.ledger import hold_key
from shared.garbage import rest_garbage_collector
from shared.settings import Settings

_RECEIVE_TIMEOUT_S = 10
_POOL_MAX = 10

_VALIDATE = """
select d.giver_id,
       exists (select from distribution_share where distribution_id = d.id and receiver_id = $3) as has_one,
       exists (select from distribution_share where distribution_id = d.id and receiver_id is null) as has_more
  from distribution d
 where d.token = $1 and d.room_id = $2 and d.closed_at is null and d.closes_at > clock_timestamp()
"""
_SENDER = "select user_id, currency, balance from account where id = $1 and not frozen"
_TRANSFER = """
insert into transfer (id, sender_id, receiver_id, user_id, currency, amount, fee, free, sender_label,
                      receiver_label, day, status, requested_at)
values ($1, $2, $3, $4, $5, $6, 0, false, '', '', current_date, 'pending', clock_timestamp())
"""


class Share(BaseModel):
    """What somebody asks for."""

    token: str


class Transfer(BaseModel):
    """What somebody sends."""

    sender_id: UUID
    receiver_id: UUID
    amount: int


def create_app(settings: Settings, queue: str) -> FastAPI:
    """The application; it asks the workers of `queue`."""
    tasks = celery_transfers.create_app(settings.redis_url, queue)
    redis: Redis = Redis.from_url(settings.redis_url)
    servers: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(settings.postgres_dsn, min_size=_POOL_MAX, max_size=_POOL_MAX) as pool:
            servers["pool"] = pool
            rest_garbage_collector()
            yield
        await redis.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/health/ready")
    async def ready() -> bool:
        """Whether a worker answers: a task with nothing to do, before anybody counts."""
        nobody = ("-", str(uuid4()), "-")

        def ask() -> None:
            tasks.send_task(celery_receive.TASK, args=nobody).get(timeout=_RECEIVE_TIMEOUT_S)

        if "receive" in queue:
            await run_in_threadpool(ask)
        return True

    @app.post("/receive")
    async def receive(
        wanted: Share, user_id: Annotated[UUID, Header(alias="x-user-id")], x_room_id: Annotated[str, Header()]
    ) -> dict[str, int]:
        found = await servers["pool"].fetchrow(_VALIDATE, wanted.token, x_room_id, user_id)
        if found is None or found["giver_id"] == user_id or found["has_one"] or not found["has_more"]:
            raise HTTPException(409)
        arguments = (wanted.token, str(user_id), x_room_id)

        def ask() -> int | None:
            amount: int | None = tasks.send_task(celery_receive.TASK, args=arguments).get(
                timeout=_RECEIVE_TIMEOUT_S
            )
            return amount

        amount = await run_in_threadpool(ask)
        if amount is None:
            raise HTTPException(409)
        return {"amount": amount}

    @app.post("/transfers", status_code=202)
    async def accept(new: Transfer) -> dict[str, UUID]:
        sender = await servers["pool"].fetchrow(_SENDER, new.sender_id)
        if sender is None:
            raise HTTPException(404)
        if await redis.incrby(hold_key(new.sender_id), new.amount) > sender["balance"]:
            await redis.decrby(hold_key(new.sender_id), new.amount)
            raise HTTPException(409)
        transfer_id = uuid4()
        row = (transfer_id, new.sender_id, new.receiver_id, sender["user_id"], sender["currency"], new.amount)
        await servers["pool"].execute(_TRANSFER, *row)
        await run_in_threadpool(lambda: tasks.send_task(celery_transfers.TASK, args=(str(transfer_id),)))
        return {"id": transfer_id}

    return app


app = create_app(Settings.from_environment(), os.environ["BENCH_QUEUE"]) if "BENCH_QUEUE" in os.environ else None
