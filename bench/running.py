"""Runs a contender's process, and waits until it has done its work."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.profiling import profiled
from bench.rows import (
    ACCEPTANCE,
    ACCEPTANCE_TASKS,
    BY_HAND,
    CELERY,
    CHORD,
    INBOX_ALONE,
    JOBS,
    JOBS_RELAYED,
    JOBS_WAITING,
    LEASED,
    LEASED_START,
    LEASED_WAITING,
    LONG,
    RECEIVE,
    RECEIVE_TASKS,
    START,
    TANDEM,
    TASK_CHORD,
    TASK_START,
    TASKS,
    TASKS_IN_THREADS,
    TRACED,
    TRANSFER_TASKS,
    TRANSFER_TASKS_HOT,
    WALLET,
    WALLET_HOT,
    WEB,
    Contender,
)
from deploy.paths import REPOSITORY
from shared.settings import Settings

_POLL_S = 0.2
_STALLED_S = 90.0
_STOP_TIMEOUT_S = 40.0
_LOG_LINES = 15
CELERY_WORKERS = 2
TRANSFER_WORKERS = 4
"""More than the cores: each waits for its commit."""
_CELERY = (
    "-m celery -A bench.contenders.{} worker --pool {} --concurrency {} "
    "--loglevel WARNING --without-gossip --without-mingle --without-heartbeat"
)
_COMMANDS = {
    **dict.fromkeys((TANDEM, TRACED, LONG), "-m bench.contenders.tandem {channel} {name}"),
    BY_HAND: "-m bench.contenders.by_hand_{broker} {channel} {name}",
    INBOX_ALONE: "-m bench.contenders.by_hand_{broker} {channel} {name} --inbox-alone",
    CELERY: _CELERY.format("celery_app", "prefork", CELERY_WORKERS),
    **dict.fromkeys((WALLET, WALLET_HOT, RECEIVE, ACCEPTANCE), "-m services.wallet.app"),
    **dict.fromkeys(
        (TRANSFER_TASKS, TRANSFER_TASKS_HOT, ACCEPTANCE_TASKS),
        _CELERY.format("celery_transfers", "prefork", TRANSFER_WORKERS),
    ),
    RECEIVE_TASKS: _CELERY.format("celery_receive", "prefork", TRANSFER_WORKERS),
    WEB: "-m uvicorn bench.contenders.celery_web:app --port {port} --log-level warning --no-access-log",
    **dict.fromkeys(
        (JOBS, JOBS_RELAYED, JOBS_WAITING, LEASED, LEASED_WAITING, CHORD, START, LEASED_START),
        "-m bench.contenders.tandem_jobs",
    ),
    **dict.fromkeys((TASKS, TASK_CHORD, TASK_START), _CELERY.format("celery_jobs", "prefork", CELERY_WORKERS)),
    TASKS_IN_THREADS: _CELERY.format("celery_jobs", "threads", CELERY_WORKERS),
}


@dataclass(frozen=True, slots=True)
class Running:
    """A contender at work."""

    contender: Contender
    process: asyncio.subprocess.Process
    log: Path

    async def until(
        self, wanted: int, counted: Callable[[], Awaitable[int]], advance: Callable[[int], None], *, what: str
    ) -> None:
        """Wait until so many are counted. Raises `BenchError` when it ends before, or stands still."""
        clock = asyncio.get_running_loop().time
        count, moved_at = 0, clock()
        while count < wanted:
            await asyncio.sleep(_POLL_S)
            if self.process.returncode is not None:
                raise self.failed(f"ended after {count} of {wanted} {what}")
            before, count = count, await counted()
            if count > before:
                advance(count - before)
                moved_at = clock()
            elif clock() - moved_at > _STALLED_S:
                raise self.failed(f"stood still at {count} of {wanted} {what}")

    def peak_mib(self) -> float:
        """The most memory that it has had, its children not counted."""
        [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(line) / 1_024

    def failed(self, why: str) -> BenchError:
        """What went wrong, with the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return BenchError("\n".join([f"{self.contender}: {why}", *lines]))


@dataclass(frozen=True, slots=True)
class Runner:
    """Starts contenders. `settings` are by broker; `environment` is what each gets besides its own."""

    settings: Mapping[str, Settings]
    environment: Mapping[str, str]
    logs: Path
    profiles: Path | None = None
    """Where the flame graphs go, if they are wanted."""

    @asynccontextmanager
    async def running(
        self, contender: Contender, channel: str, own: Mapping[str, str] | None = None
    ) -> AsyncIterator[Running]:
        """The contender's process; told to stop on leaving, and gone, with its children, afterwards."""
        settings = self.settings.get(contender.broker, self.settings["rabbit"])
        fields = {"channel": channel, "name": short(contender.name), "broker": contender.broker}
        command = _COMMANDS[contender.name].format(**fields, port=settings.http_port).split()
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        environment = {
            **os.environ,
            **self.environment,
            **{f"TANDEM_{name.upper()}": str(value) for name, value in given.items() if value is not None},
            "TANDEM_ROLES": "consumer",
            "TANDEM_TRACE_RATIO": "0",  # where an event does not say that it is traced, it is not
            "BENCH_QUEUE": f"{CELERY}.{channel}",
            "BENCH_SUBSCRIBER": CELERY,
            **(own or {}),
        }
        log = self.logs / f"{channel}-{contender.broker}-{short(contender.name)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdin=asyncio.subprocess.DEVNULL, stdout=output,
                stderr=asyncio.subprocess.STDOUT, cwd=REPOSITORY, env=environment, start_new_session=True,
            )  # fmt: skip
        graph = None if self.profiles is None else self.profiles / f"{contender.broker}-{contender.name}.svg"
        try:
            async with profiled(process.pid, graph):
                yield Running(contender, process, log)
                with suppress(ProcessLookupError, TimeoutError):
                    process.terminate()
                    await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def short(name: str) -> str:
    """A contender's name, as a subscriber and a channel may be called."""
    return name.replace(",", "").replace(" ", "-")
