"""A Celery task with the same durable effect, late acknowledgement and a quorum queue like the others' queues.

The worker is `celery -A bench.contenders.celery_app worker`; `BENCH_QUEUE` names its queue and `BENCH_SUBSCRIBER`
the scope of its claims. No result backend: nobody waits for a result here.
"""

from __future__ import annotations

import os
from typing import Any

import orjson
import psycopg
from celery import Celery
from celery.signals import worker_process_init
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


class _Servers:
    """One worker process's connections, opened after the fork."""

    settings: Settings
    postgres: psycopg.Connection
    redis: Redis


def create_worker() -> Any:
    """The application with its task, from the environment."""
    settings = Settings.from_environment()
    subscriber = os.environ["BENCH_SUBSCRIBER"]
    app = create_app(settings.rabbit_url, os.environ["BENCH_QUEUE"])

    @worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def connect(**_: object) -> None:
        _Servers.postgres = psycopg.connect(settings.postgres_dsn, autocommit=True)
        _Servers.redis = Redis.from_url(settings.redis_url)

    @app.task(name=TASK, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
    def record_effect(task: Any, body: str) -> None:
        event = orjson.loads(body)
        key = f"tandem:claim:{subscriber}:{event['source']}:{event['id']}"
        if not _Servers.redis.set(key, "owner", nx=True, px=int(settings.claim_lock_s * 1_000)):
            if _Servers.redis.get(key) == b"d":
                return
            raise task.retry(countdown=1)
        data = event["data"]
        with _Servers.postgres.transaction():
            fresh = _Servers.postgres.execute(_INBOX, (subscriber, event["source"], event["id"])).fetchone()
            if fresh is not None:
                effect = (event["id"], data["order_id"], data["user_id"], data["total_amount"])
                _Servers.postgres.execute(_EFFECT, effect)
        _Servers.redis.set(key, "d", px=int(settings.claim_done_s * 1_000))

    return app


app = create_worker() if "BENCH_QUEUE" in os.environ else None
