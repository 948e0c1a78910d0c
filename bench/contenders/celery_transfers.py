"""Transfers as a guide to Celery has them: a task each, rows locked by `select for update`, a hold in Redis.

The worker is `celery -A bench.contenders.celery_transfers worker`; `BENCH_QUEUE` names its queue. It sleeps before
each for as long as `TANDEM_TRANSFER_DELAY_S` says. Redis is broker,
result backend and the memory in which holds are kept. Late acknowledgement, as for anything that must not be lost;
rows are locked in the order of their ids, since two transfers in opposite directions would wait for each other.
"""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import UUID

import psycopg
from celery import Celery
from celery.signals import worker_process_init
from redis import Redis

from bench.ledger import hold_key
from shared.settings import Settings

TASK = "bench.execute_transfer"
_PREFETCH_PER_WORKER = 64  # what Celery's optimization guide advises for many short tasks

_LOCK_TRANSFER = "select sender_id, receiver_id, amount, status from transfer where id = %s for update"
_LOCK_ACCOUNTS = "select id, balance from account where id = any(%s) order by id for update"
_CHANGE = "update account set balance = balance + %s, held = held - %s where id = %s"
_POSTING = "insert into posting (movement_id, account_id, currency, amount) values (%s, %s, 'KRW', %s)"
_END = "update transfer set status = %s, reason = %s, ended_at = clock_timestamp() where id = %s"


def create_app(redis_url: str, queue: str) -> Any:
    """The Celery application, for the worker and for whoever sends to it."""
    app = Celery("bench", broker=redis_url, backend=redis_url)
    app.conf.update(
        task_default_queue=queue,
        task_acks_late=True,
        task_serializer="json",
        accept_content=["json"],
        result_expires=600,
        worker_prefetch_multiplier=_PREFETCH_PER_WORKER,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
    )
    return app


class _Servers:
    """One worker process's connections, opened after the fork."""

    postgres: psycopg.Connection
    redis: Redis
    delay_s: float


def execute(transfer_id: str) -> str:
    """Move the money, in one transaction; returns the transfer's end."""
    time.sleep(_Servers.delay_s)
    cursor = _Servers.postgres.cursor()
    with _Servers.postgres.transaction():
        row = cursor.execute(_LOCK_TRANSFER, (transfer_id,)).fetchone()
        if row is None or row[3] != "pending":
            return "ended already"
        sender_id, receiver_id, amount = row[:3]
        balances: dict[UUID, int] = dict(cursor.execute(_LOCK_ACCOUNTS, ([sender_id, receiver_id],)).fetchall())
        enough = balances[sender_id] >= amount
        if enough:
            cursor.execute(_CHANGE, (-amount, amount, sender_id))
            cursor.execute(_CHANGE, (amount, 0, receiver_id))
            cursor.execute(_POSTING, (transfer_id, sender_id, -amount))
            cursor.execute(_POSTING, (transfer_id, receiver_id, amount))
        else:
            cursor.execute(_CHANGE, (0, amount, sender_id))
        status, reason = ("completed", None) if enough else ("failed", "insufficient_funds")
        cursor.execute(_END, (status, reason, transfer_id))
    _Servers.redis.decrby(hold_key(sender_id), amount)
    return status


def create_worker() -> Any:
    """The application with its task, from the environment."""
    settings = Settings.from_environment()
    app = create_app(settings.redis_url, os.environ["BENCH_QUEUE"])

    @worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def connect(**_: object) -> None:
        _Servers.postgres = psycopg.connect(settings.postgres_dsn, autocommit=True)
        _Servers.redis = Redis.from_url(settings.redis_url)
        _Servers.delay_s = settings.transfer_delay_s

    app.task(name=TASK)(execute)
    return app


app = create_worker() if "BENCH_QUEUE" in os.environ else None
