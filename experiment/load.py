"""Generates load: sends a schedule of requests over HTTP without waiting for the system (open loop).

Each operation starts at its intended time whatever became of the others. Only two things can hold one up: the
order that it pays or cancels is not yet acknowledged, or all slots for requests under way are taken. Neither
moves the schedule, both are counted, and latency runs from the intended time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from experiment.clock import Clock
from experiment.figures import Latencies
from experiment.ledger import Entry, Outcome
from experiment.payload import note
from experiment.schedule import EVENT_TYPES, Operation

LATE_S = 0.05
"""A request that has its turn this long after it could have been sent was held up by the load generator, or the
machine."""


@dataclass(slots=True)
class LoadReport:
    """How well the schedule was kept.

    `late` and `send_lag` tell how late the load generator came to a request after its time, and after the answer
    to the order that it pays or cancels; `overruns` how many requests then found all slots taken, because the
    system did not keep up.
    """

    operations: int = 0
    started_s: float = 0.0
    ended_s: float = 0.0
    late: int = 0
    overruns: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    send_lag: Latencies = field(default_factory=Latencies)

    def figures(self) -> dict[str, object]:
        return {
            "operations": self.operations,
            "seconds": round(self.ended_s - self.started_s, 3),
            "late_sends": self.late,
            "overruns": self.overruns,
            "send_lag_p99_ms": self.send_lag.percentile_ms(99),
            "errors": self.errors,
        }


class LoadGenerator:
    """Sends operations to one set of services and writes the ledger.

    `urls` are the base URLs of the services by name; `users` the ids of the registered users. Each order has a
    note of `note_bytes`, drawn by `seed`.
    """

    def __init__(
        self,
        urls: dict[str, str],
        users: Sequence[str],
        clock: Clock,
        *,
        in_flight_max: int,
        timeout_s: float,
        lines_per_order: int,
        note_bytes: int = 0,
        seed: str = "",
        on_sent: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._urls = urls
        self._users = users
        self._clock = clock
        self._slots = asyncio.Semaphore(in_flight_max)
        self._lines: list[dict[str, Any]] = [
            {"sku": f"SKU-{n:04d}", "quantity": n + 1, "unit_amount": 1_250} for n in range(lines_per_order)
        ]
        self._note_bytes = note_bytes
        self._seed = seed
        self._on_sent = on_sent
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def run(
        self, operations: Sequence[Operation], phase: str, enough: asyncio.Event | None = None
    ) -> tuple[list[Entry], LoadReport]:
        """Send all of `operations`, or those whose time comes before `enough` is set.

        Returns the ledger entries of what was sent, in the same order, when each has its answer.
        """
        # aiohttp, because the load generator shares the CPUs with what it measures: httpx takes 13 times as much.
        # The slots bound the connections.
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session:
            return await self._run(session, operations, phase, enough or asyncio.Event())

    async def _run(
        self, session: aiohttp.ClientSession, operations: Sequence[Operation], phase: str, enough: asyncio.Event
    ) -> tuple[list[Entry], LoadReport]:
        report = LoadReport()
        entries: list[Entry] = []
        placed: dict[int, asyncio.Future[Entry | None]] = {}
        tasks: list[asyncio.Task[None]] = []
        report.started_s = self._clock.now_s()
        try:
            for operation in operations:
                intended_s = report.started_s + operation.at_s
                if (wait_s := intended_s - self._clock.now_s()) > 0:
                    await asyncio.sleep(wait_s)
                if enough.is_set():
                    break
                entry = Entry(phase, EVENT_TYPES[operation.kind], intended_s)
                entry.idempotency_key = f"{phase}-{operation.number}"
                entries.append(entry)
                if operation.kind == "place":
                    placed[operation.number] = asyncio.get_running_loop().create_future()
                tasks.append(asyncio.create_task(self._perform(session, operation, entry, placed, report)))
                self._on_sent(len(tasks))
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        report.operations, report.ended_s = len(entries), self._clock.now_s()
        return entries, report

    async def _perform(
        self,
        session: aiohttp.ClientSession,
        operation: Operation,
        entry: Entry,
        placed: dict[int, asyncio.Future[Entry | None]],
        report: LoadReport,
    ) -> None:
        order_id: str | None = None
        possible_s = entry.intended_s
        if operation.order is not None:
            order = await placed[operation.order]
            if order is None or order.acknowledged_s is None:
                return  # its order was not placed, so there is nothing to close: not sent
            entry.key = order_id = order.key
            possible_s = max(possible_s, order.acknowledged_s)
        lag_s = self._clock.now_s() - possible_s
        report.send_lag.record(lag_s)
        report.late += lag_s > LATE_S
        try:
            if self._slots.locked():
                report.overruns += 1
            async with self._slots:
                await self._send(session, operation, entry, order_id)
        finally:
            if operation.kind == "place":
                placed[operation.number].set_result(entry if entry.outcome is Outcome.ACKNOWLEDGED else None)
        if entry.outcome is not Outcome.ACKNOWLEDGED:
            reason = str(entry.status or entry.error)
            report.errors[reason] = report.errors.get(reason, 0) + 1

    async def _send(
        self, session: aiohttp.ClientSession, operation: Operation, entry: Entry, order_id: str | None
    ) -> None:
        key = str(entry.idempotency_key)
        method, service, path, body = self._request(operation, order_id, key)
        if operation.kind == "update":
            entry.key = self._users[operation.user]
        headers = {"idempotency-key": key, "content-type": "application/json"}
        content = None if body is None else orjson.dumps(body)
        entry.outcome = Outcome.INDETERMINATE
        entry.sent_s = self._clock.now_s()
        try:
            async with session.request(
                method, self._urls[service] + path, data=content, headers=headers
            ) as answer:
                status, document = answer.status, orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            entry.error = type(error).__name__
            return
        entry.status = status
        if status < 300:
            entry.acknowledged_s = self._clock.now_s()
            entry.outcome = Outcome.ACKNOWLEDGED
            entry.key, entry.sequence = document["id"], document["version"]
        elif 400 <= status < 500:
            entry.outcome = Outcome.REFUSED

    def _request(
        self, operation: Operation, order_id: str | None, key: str
    ) -> tuple[str, str, str, dict[str, Any] | None]:
        """Method, service, path and body; `key` is of this request alone."""
        if operation.kind == "place":
            user = self._users[operation.user]
            order = {"user_id": user, "currency": "EUR", "lines": self._lines}
            text = note(self._note_bytes, f"{self._seed}-{key}")
            return "POST", "order", "/orders", order if text is None else {**order, "note": text}
        if operation.kind == "register":
            name = f"User {operation.user}"
            return "POST", "user", "/users", {"email": f"user{operation.user}@example.org", "name": name}
        if operation.kind == "update":
            # A new name every time, in every phase: a change that changes nothing publishes nothing.
            return "PATCH", "user", f"/users/{self._users[operation.user]}", {"name": f"Change {key}"}
        return "POST", "order", f"/orders/{order_id}/{operation.kind}", None
