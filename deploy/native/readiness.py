"""Waiting until something really answers, with a time limit and a reason when it does not."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Event
from typing import Any

import httpx

from deploy.errors import StartError
from deploy.native.supervision import Supervisor
from deploy.native.system import last_lines

_POLL_S = 0.1
_CRASHES_MAX = 3

Probe = Callable[[], Awaitable[None]]


def await_ready(
    name: str, probe: Probe, supervisor: Supervisor, log: Path, *, timeout_s: float, cancelled: Event
) -> None:
    """Poll `probe` until it does not raise. Must be called in a thread without a running event loop.

    Raises StartError, with the last log lines, when the process has crashed three times, was given up by
    supervisor, or `timeout_s` is over; and when `cancelled` is set.
    """
    deadline = time.monotonic() + timeout_s
    starts: set[int] = set()
    reason = "no answer yet"
    while time.monotonic() < deadline:
        if cancelled.is_set():
            raise StartError(f"waiting for {name} was given up")
        try:
            asyncio.run(probe_within(probe, deadline - time.monotonic()))
        except Exception as error:  # noqa: BLE001  a client's way of saying "not yet"; reported at the deadline
            reason = f"{type(error).__name__}: {error}".strip().rstrip(":")
        else:
            return
        _check_alive(name, supervisor.process(name), starts, log)
        time.sleep(_POLL_S)
    raise StartError(f"{name} did not become ready within {timeout_s:.0f} s ({reason}){log_tail_note(log)}")


def after_connect(port: int, probe: Probe) -> Probe:
    """A probe that first sees whether anything listens: broker clients log every refused connection."""

    async def both() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        await probe()

    return both


async def probe_within(probe: Probe, timeout_s: float) -> None:
    """Run a probe once, bounded in time."""
    await asyncio.wait_for(probe(), timeout=max(timeout_s, 0.1))


def http_probe(url: str) -> Probe:
    """A probe that wants the status 200; its error carries the body, which names what is missing."""

    async def probe() -> None:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            answer = await client.get(url)
        if answer.status_code != 200:
            raise StartError(f"{url} answers {answer.status_code}: {answer.text[:300]}")

    return probe


def log_tail_note(log: Path, count: int = 12) -> str:
    """The end of a log as part of an error message."""
    try:
        lines = last_lines(log.read_text(errors="replace")[-20_000:], count)
    except FileNotFoundError:
        return ""
    return f"; the end of {log}:\n{lines}" if lines else f"; {log} is empty"


def _check_alive(name: str, row: dict[str, Any], starts: set[int], log: Path) -> None:
    if row["statename"] in {"BACKOFF", "EXITED", "FATAL"}:
        starts.add(int(row["start"]))
    if row["statename"] == "FATAL" or len(starts) >= _CRASHES_MAX:
        raise StartError(f"{name} does not start{log_tail_note(log)}")
