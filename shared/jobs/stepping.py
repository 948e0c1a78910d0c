"""A handler in a child: arguments go there as JSON, its result and what it told come back pickled, or its error.

Whether an error allows another attempt is said there, where its class is known.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pkgutil import resolve_name
from typing import Any
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import Executable

from shared.children import Report, describe
from shared.errors import ConfigurationError
from shared.event import EventData
from shared.jobs.context import JobContext, ReadChunk
from shared.jobs.effects import Effect, Effects
from shared.jobs.errors import NoCursorError
from shared.jobs.retries import may_pass
from shared.jobs.signatures import Job

TARGET = f"{__name__}:run"


@dataclass(frozen=True, slots=True)
class Returned:
    """`result` is JSON text."""

    result: str
    effects: Sequence[Effect]


@dataclass(frozen=True, slots=True)
class Raised:
    """`error` is what rows show of it."""

    error: Mapping[str, Any]
    may_pass: bool


@dataclass(frozen=True, slots=True)
class ChildAttempt:
    """What a step in a child has instead of a transaction."""

    reporter: Report
    effects: Effects = field(default_factory=Effects)

    def report(self, current: float, total: float, message: str = "") -> None:
        self.reporter(current, total, message)

    def tell(self, statement: Executable, row: Mapping[str, Any]) -> None:
        self.effects.tell(statement, row)

    def publish(self, data: EventData, *, subject: str, key: str | None = None) -> None:
        self.effects.publish(data, subject=subject, key=key)

    def iterate(self, _read: ReadChunk) -> AsyncIterator[Any]:
        raise NoCursorError(
            "a step in a process of its own has no cursor: make it `async def` and leased, without process=True"
        )


@cache
def reference(handler: Job[..., Any]) -> str:
    """Where a child finds the handler, `module:name`. Raises `ConfigurationError` when it is not there."""
    where = f"{handler.function.__module__}:{handler.function.__qualname__}"
    try:
        found = resolve_name(where)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is not handler:
        raise ConfigurationError(f"{handler.name} must stand in its module under its own name to run in a process")
    return where


def payload(handler: Job[..., Any], context: JobContext, given: Sequence[Any], bytes_max: int) -> bytes:
    """A step for `run`; `given` are its stored arguments and its input, where it has one, as JSON values.

    Its result has at most `bytes_max` as JSON.
    """
    about = [context.job_id, context.step_id, context.attempt, context.due_at, bytes_max]
    return to_json([reference(handler), *about, *given])


def run(step: bytes, report: Report) -> bytes:
    """Called in the child: a pickled `Returned` or `Raised`."""
    where, job_id, step_id, attempt, due_at, bytes_max, args, *inputs = from_json(step)
    handler: Job[..., Any] = resolve_name(where)
    port = ChildAttempt(report)
    context = JobContext(UUID(job_id), UUID(step_id), attempt, datetime.fromisoformat(due_at), port=port)
    try:
        values = handler.arguments.with_context(handler.arguments.to_values(args, *inputs), context)
        result = handler.function(**values)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        encoded = handler.arguments.result_to_json(result, bytes_max)
        return pickle.dumps(Returned(encoded, port.effects.take()))
    except Exception as error:  # noqa: BLE001  it is the attempt's outcome
        return pickle.dumps(Raised(document(describe(error)), may_pass(handler.retries, error)))


def outcome_of(result: bytes) -> Returned | Raised:
    """What `run` returned. It is our own child's."""
    told: Returned | Raised = pickle.loads(result)  # noqa: S301
    return told


def document(described: Mapping[str, Any]) -> dict[str, Any]:
    """An exception as rows show it, of what the child says of it."""
    return {
        "type": described["type"].rpartition(".")[2],
        "message": described["message"],
        "stack": described["stack"],
    }
