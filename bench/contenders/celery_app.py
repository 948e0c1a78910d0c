"""A Celery task with the same durable effect, late acknowledgement and a quorum queue like the others' queues.

The worker is `celery -A bench.contenders.celery_app worker`; `BENCH_QUEUE` names its queue and `BENCH_SUBSCRIBER`
the scope of its claims. No result backend: nobody waits for a result here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, LifoQueue
from typing import Any

import orjson
import psycopg
from celery import Celery
from kombu import entity
from redis import Redis

from shared.settings import Settings

TASK = "bench.record_effect"
_PREFETCH_PER_WORKER = 64  # what Celery's optimization guide advises for many short tasks

_INBOX = """
insert into inbox (subscriber, source, event_id) values (%s, %s, %s) on conflict do nothing returning event_id
"""
_EFFECT = "insert into effect (event_id, order_id, user_id, total_amount) values (%s, %s, %s, %s)"


def create_app(rabbit_url: str | None, queue: str) -> Any:
    """The Celery application, for the worker and for whoever sends to it."""
    app = Celery("bench", broker=rabbit_url)
    app.conf.update(
        task_queues=[_quorum_queue(queue)],
        task_default_queue=queue,
        task_acks_late=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        worker_prefetch_multiplier=_PREFETCH_PER_WORKER,
        worker_enable_remote_control=False,
        broker_transport_options={"confirm_publish": True},
        broker_connection_retry_on_startup=True,
        broker_native_delayed_delivery_queue_type="classic",
    )
    return app


def _quorum_queue(name: str) -> Any:
    queue_type: Any = entity.Queue
    return queue_type(name, durable=True, queue_arguments={"x-queue-type": "quorum"})


class _Connections:
    """One worker process's connections to PostgreSQL: as many as tasks run at once, opened after the fork."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._idle: LifoQueue[psycopg.Connection] = LifoQueue()

    @contextmanager
    def one(self) -> Iterator[psycopg.Connection]:
        """A connection that nobody else uses meanwhile."""
        try:
            connection = self._idle.get_nowait()
        except Empty:
            connection = psycopg.connect(self._dsn, autocommit=True)
        yield connection
        self._idle.put(connection)


def create_worker() -> Any:
    """The application with its task, from the environment."""
    settings = Settings.from_environment()
    subscriber = os.environ["BENCH_SUBSCRIBER"]
    app = create_app(settings.rabbit_url, os.environ["BENCH_QUEUE"])
    redis = Redis.from_url(settings.redis_url)  # connects when it is used: after the fork
    connections = _Connections(settings.postgres_dsn)

    @app.task(name=TASK, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
    def record_effect(task: Any, body: str) -> None:
        event = orjson.loads(body)
        key = f"tandem:claim:{subscriber}:{event['source']}:{event['id']}"
        if not redis.set(key, "owner", nx=True, px=int(settings.claim_lock_s * 1_000)):
            if redis.get(key) == b"d":
                return
            raise task.retry(countdown=1)
        data = event["data"]
        with connections.one() as postgres, postgres.transaction():
            fresh = postgres.execute(_INBOX, (subscriber, event["source"], event["id"])).fetchone()
            if fresh is not None:
                effect = (event["id"], data["order_id"], data["user_id"], data["total_amount"])
                postgres.execute(_EFFECT, effect)
        redis.set(key, "d", px=int(settings.claim_done_s * 1_000))

    return app


app = create_worker() if "BENCH_QUEUE" in os.environ else None
