"""Runs a contender's processes, and waits until they have done their work."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.commands import COMMANDS
from bench.errors import BenchError
from bench.profiling import profiled
from bench.rows import CELERY, Contender
from deploy.paths import REPOSITORY
from shared.settings import Settings

_POLL_S, _POLL_MAX_S = 0.1, 2.0
_COUNTING_SHARE = 0.02
"""Of the time: to count hundreds of thousands of rows takes as long as dozens of batches, of the same server."""
_STALLED_S = 90.0
_LOG_LINES = 15


class Process(Protocol):
    """What is asked of a process: asyncio's is one."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None:
        """None while it runs."""

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


async def start_process(words: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start Python with these words, in a session of its own; what it says is added to `log`."""
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, *words, stdin=asyncio.subprocess.DEVNULL, stdout=output,
            stderr=asyncio.subprocess.STDOUT, cwd=REPOSITORY, env=environment, start_new_session=True,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Running:
    """A contender at work."""

    contender: Contender
    processes: tuple[Process, ...]
    log: Path

    async def until(
        self, wanted: int, counted: Callable[[], Awaitable[int]], advance: Callable[[int], None], *, what: str
    ) -> None:
        """Wait until so many are counted. Raises `BenchError` when a process ends before, or all stand still."""
        clock = asyncio.get_running_loop().time
        count, asked_at, pause_s = 0, clock(), _POLL_S
        moved_at = asked_at
        while count < wanted:
            await asyncio.sleep(pause_s)
            if any(process.returncode is not None for process in self.processes):
                raise self.failed(f"ended after {count} of {wanted} {what}")
            asked_at = clock()
            before, count = count, await counted()
            answered_at = clock()
            pause_s = min(max(_POLL_S, (answered_at - asked_at) / _COUNTING_SHARE), _POLL_MAX_S)
            if count > before:
                advance(count - before)
                moved_at = answered_at
            elif answered_at - moved_at > _STALLED_S:
                raise self.failed(f"stood still at {count} of {wanted} {what}")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Its processes stand still, as they are; they go on together on leaving."""
        for process in self.processes:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self.processes:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)

    def peak_mib(self) -> float:
        """The most memory that its first process has had, children not counted. Raises `BenchError` for one that
        ended."""
        status = Path(f"/proc/{self.processes[0].pid}/status")
        try:
            [line] = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        except (OSError, ValueError) as error:  # a process that nobody has waited for yet has no memory any more
            raise self.failed("ended by itself") from error
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
        """The contender's processes; told to stop on leaving, and gone, with their children, afterwards."""
        command = COMMANDS[contender.name]
        settings = self.settings.get(contender.broker, self.settings["rabbit"])
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        environment = {
            **os.environ,
            **self.environment,
            **{f"TANDEM_{name.upper()}": str(value) for name, value in given.items() if value is not None},
            "TANDEM_TRACE_RATIO": "1",  # as where nothing is set, and with files, as in the native runtime
            "TANDEM_OTLP_DIR": str(self.logs),
            "BENCH_QUEUE": f"{CELERY}.{channel}",
            "BENCH_SUBSCRIBER": CELERY,
            **command.environment,
            **(own or {}),
        }
        log = self.logs / f"{short(contender.name)}-{channel}-{contender.broker}.log"
        graph = None if self.profiles is None else self.profiles / f"{contender.broker}-{contender.name}.svg"
        async with AsyncExitStack() as stack:
            processes = []
            for number in range(command.processes):
                fields = {"channel": channel, "name": short(contender.name), "broker": contender.broker}
                port = int(environment["TANDEM_HTTP_PORT"]) + number
                words = command.words.format(**fields, port=port, process=number).split()
                process = await start_process(words, {**environment, "TANDEM_HTTP_PORT": str(port)}, log)
                stack.push_async_callback(_gone, process)
                processes.append(process)
            async with profiled(processes[0].pid, graph):
                yield Running(contender, tuple(processes), log)
                await asyncio.gather(*(_stopped(process, command.stop_timeout_s) for process in processes))


async def _stopped(process: Process, timeout_s: float) -> None:
    """Told to stop, and waited for, bounded."""
    with suppress(ProcessLookupError, TimeoutError):
        process.terminate()
        await asyncio.wait_for(process.wait(), timeout_s)


async def _gone(process: Process) -> None:
    """Killed, with its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def short(name: str) -> str:
    """A contender's name, as a subscriber and a channel may be called."""
    return name.replace(",", "").replace(" ", "-")
