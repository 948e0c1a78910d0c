"""Receiving a share as a guide to Celery has it: a task in which rows are locked by `select for update`.

The worker is `celery -A bench.contenders.celery_receive worker`; `BENCH_QUEUE` names its queue. Whoever asks waits
for the result, in Redis, with `task.get(timeout=10)`: `celery_web`. Late acknowledgement; a share once for each
user.
"""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

import psycopg
from celery.signals import worker_process_init

from bench.contenders import celery_transfers
from shared.settings import Settings

TASK = "bench.receive"

_LOCK_DISTRIBUTION = """
select id from distribution where token = %s and room_id = %s and closed_at is null for update
"""
_MINE = "select amount from distribution_share where distribution_id = %s and receiver_id = %s"
_LOCK_SHARE = """
select number, amount from distribution_share where distribution_id = %s and receiver_id is null
 order by number limit 1 for update
"""
_LOCK_ACCOUNT = "select id from account where user_id = %s order by id limit 1 for update"
_TAKE = """
update distribution_share set receiver_id = %s, receipt_id = %s, taken_at = clock_timestamp()
 where distribution_id = %s and number = %s
"""
_CHANGE = "update account set balance = balance + %s where id = %s"
_POSTINGS = """
insert into posting (movement_id, account_id, currency, amount) values (%s, %s, 'KRW', %s), (%s, %s, 'KRW', %s)
"""


class _Servers:
    """One worker process's connection, opened after the fork."""

    postgres: psycopg.Connection


def receive(token: str, user_id: str, room_id: str) -> int | None:
    """The amount that the user received, now or before; None where there is nothing left."""
    cursor = _Servers.postgres.cursor()
    with _Servers.postgres.transaction():
        found = cursor.execute(_LOCK_DISTRIBUTION, (token, room_id)).fetchone()
        if found is None:
            return None
        mine = cursor.execute(_MINE, (found[0], user_id)).fetchone()
        if mine is not None:
            return int(mine[0])
        share = cursor.execute(_LOCK_SHARE, (found[0],)).fetchone()
        account = cursor.execute(_LOCK_ACCOUNT, (user_id,)).fetchone()
        if share is None or account is None:
            return None
        (pot,), (number, amount), (account_id,), movement_id = found, share, account, uuid4()
        cursor.execute(_TAKE, (user_id, movement_id, pot, number))
        cursor.execute(_CHANGE, (amount, account_id))
        cursor.execute(_CHANGE, (-amount, pot))
        cursor.execute(_POSTINGS, (movement_id, account_id, amount, movement_id, pot, -amount))
    return int(amount)


def create_worker() -> Any:
    """The application with its task, from the environment."""
    settings = Settings.from_environment()
    app = celery_transfers.create_app(settings.redis_url, os.environ["BENCH_QUEUE"])

    @worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def connect(**_: object) -> None:
        _Servers.postgres = psycopg.connect(settings.postgres_dsn, autocommit=True)

    app.task(name=TASK)(receive)
    return app


app = create_worker() if "BENCH_QUEUE" in os.environ else None
