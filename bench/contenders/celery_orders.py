"""`POST /orders` as FastAPI and Celery have it: insert the row, call `.delay`.

`python -m bench.contenders.celery_orders`; `BENCH_QUEUE` names the queue. The row is that of the order service,
in the same table, by a pool of asyncpg's. The message is confirmed before the answer, like an outbox row that
is committed; in a thread, so that the loop goes on meanwhile. Both are not one: a process that ends between
them leaves an order that nobody hears of.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import orjson
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from uuid_utils.compat import uuid7

from bench.contenders import celery_app
from bench.events import SOURCE
from shared.garbage import rest_garbage_collector
from shared.settings import Settings

_POOL_MAX = 10
"""Connections to each server, and threads: as many as the order service and Celery have at most if not told."""
_INSERT = """
insert into orders (id, user_id, currency, lines, total_amount, status, version, placed_at, updated_at)
values ($1, $2, $3, $4, $5, 'placed', 1, $6, $6)
"""


class Line(BaseModel):
    """One article; `unit_amount` is in the currency's minor unit."""

    model_config = ConfigDict(extra="forbid")

    sku: str = Field(min_length=1, max_length=64)
    quantity: int = Field(ge=1, le=1_000)
    unit_amount: int = Field(ge=0, le=1_000_000_000)


class NewOrder(BaseModel):
    """What somebody wants to buy."""

    model_config = ConfigDict(extra="forbid")

    user_id: UUID
    currency: str = Field(pattern="^[A-Z]{3}$")
    lines: Annotated[list[Line], Field(min_length=1, max_length=100)]


def create_app(settings: Settings, queue: str) -> FastAPI:
    """The application, which connects when it is started."""
    tasks = celery_app.create_app(settings.rabbit_url, queue)
    tasks.conf.broker_pool_limit = _POOL_MAX
    record_effect = tasks.task(name=celery_app.TASK, ignore_result=True)(_elsewhere)
    threads = ThreadPoolExecutor(_POOL_MAX)
    pools: list[asyncpg.Pool[Any]] = []

    @asynccontextmanager
    async def connected(_app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(settings.postgres_dsn, max_size=_POOL_MAX) as pool:
            pools.append(pool)
            yield
        threads.shutdown()

    app = FastAPI(lifespan=connected)

    @app.get("/health/ready")
    async def ready() -> None:
        """Whether it is up."""

    @app.post("/orders", status_code=201)
    async def place_order(new: NewOrder) -> Response:
        order_id, now = uuid7(), datetime.now(UTC)
        lines = [line.model_dump() for line in new.lines]
        total_amount = sum(line.quantity * line.unit_amount for line in new.lines)
        document = orjson.dumps(lines).decode()
        await pools[0].execute(_INSERT, order_id, new.user_id, new.currency, document, total_amount, now)
        order = {
            "order_id": order_id,
            "user_id": new.user_id,
            "currency": new.currency,
            "total_amount": total_amount,
            "lines": lines,
        }
        body = orjson.dumps({"id": str(order_id), "source": SOURCE, "data": order}).decode()
        await asyncio.get_running_loop().run_in_executor(threads, record_effect.delay, body)
        answer = orjson.dumps({**order, "id": order_id, "status": "placed", "version": 1, "placed_at": now})
        return Response(answer, 201, media_type="application/json")

    return app


def _elsewhere(body: str) -> None:
    """What the worker does."""
    raise NotImplementedError(body)


if __name__ == "__main__":
    told = Settings.from_environment()
    rest_garbage_collector()
    uvicorn.run(
        create_app(told, os.environ["BENCH_QUEUE"]),
        host=told.http_host,
        port=told.http_port,
        log_config=None,
        access_log=False,
    )
