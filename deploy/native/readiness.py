"""Waiting until something really answers, with a time limit and a reason when it does not."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Event
from typing import Any

import httpx

from deploy.errors import StartError
from deploy.native.install.system import last_lines
from deploy.native.supervision import Supervisor

_POLL_S = 0.1
_ALIVE_POLL_S = 0.5  # supervisor answers with the rows of all processes: too dear for every poll of each
_STARTS_MAX = 3  # one may be that of a process that was just killed

# For plain HTTP. Reading the authorities of this machine takes 40 ms of CPU, for every client anew.
_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

Probe = Callable[[], Awaitable[None]]


def await_ready(
    name: str, probe: Probe, supervisor: Supervisor, log: Path, *, timeout_s: float, cancelled: Event
) -> None:
    """Poll `probe` until it does not raise. Must be called in a thread without a running event loop.

    Raises StartError, with the last log lines, when the process was started for the third time, was given
    up by supervisor, or `timeout_s` is over; and when `cancelled` is set.
    """
    deadline = time.monotonic() + timeout_s
    said_before = supervisor.log_size_at_start(name)
    starts: set[int] = set()
    look_at = time.monotonic()
    reason = "no answer yet"
    while time.monotonic() < deadline:
        if cancelled.is_set():
            raise StartError(f"waiting for {name} was given up")
        try:
            asyncio.run(_probe_within(probe, deadline, cancelled))
        except Exception as error:  # noqa: BLE001  a client's way of saying "not yet"; reported at the deadline
            reason = f"{type(error).__name__}: {error}".strip().rstrip(":")
        else:
            return
        if time.monotonic() >= look_at:
            _check_alive(name, supervisor.process(name), starts, lambda: log_tail_note(log, said_before))
            look_at = time.monotonic() + _ALIVE_POLL_S
        time.sleep(_POLL_S)
    raise StartError(
        f"{name} did not become ready within {timeout_s:.0f} s ({reason}){log_tail_note(log, said_before)}"
    )


def after_connect(port: int, probe: Probe) -> Probe:
    """A probe that first sees whether anything listens: broker clients log every refused connection."""

    async def both() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        await probe()

    return both


async def _probe_within(probe: Probe, deadline: float, cancelled: Event) -> None:
    """Run a probe once, bounded in time; whoever gives up the wait does not wait for its answer either."""
    asked = asyncio.ensure_future(probe())
    try:
        while not asked.done():
            if cancelled.is_set() or time.monotonic() >= deadline:
                raise TimeoutError("no answer in time")
            await asyncio.wait([asked], timeout=_POLL_S)
        await asked
    finally:
        asked.cancel()
        await asyncio.wait([asked], timeout=_POLL_S)


def http_probe(url: str) -> Probe:
    """A probe that wants the status 200; its error carries the body, which names what is missing."""

    address = httpx.URL(url)

    async def probe() -> None:
        # Most answers are that nobody listens yet, and a client costs four times as much.
        socket.create_connection((address.host, address.port or 80), timeout=1).close()
        async with httpx.AsyncClient(timeout=5, trust_env=False, verify=_NO_AUTHORITIES) as client:
            answer = await client.get(url)
        if answer.status_code != 200:
            raise StartError(f"{url} answers {answer.status_code}: {answer.text[:300]}")

    return probe


def log_tail_note(log: Path, since: int = 0, count: int = 12) -> str:
    """The end of a log, from byte `since` on, as part of an error message; what is repeated is shown once."""
    try:
        written = log.read_bytes()
    except FileNotFoundError:
        return ""
    text = written[since if since <= len(written) else 0 :].decode(errors="replace")
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not lines:
        return f"; it wrote nothing to {log}"
    if len(lines) == 1:
        return f": {lines[0]}"
    return f"; the end of {log}:\n" + last_lines("\n".join(lines), count)


def _check_alive(name: str, row: dict[str, Any], starts: set[int], note: Callable[[], str]) -> None:
    if row["start"]:
        starts.add(int(row["start"]))
    if row["statename"] == "FATAL" or len(starts) >= _STARTS_MAX:
        raise StartError(f"{name} does not start{note()}")
