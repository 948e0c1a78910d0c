"""Runs processes of a layer beside each other, and notes how far they are together."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.native.environment import of_children
from deploy.paths import REPOSITORY
from experiment.figures import Progressed, RateFigure, rate

_READY_S = 60.0
_STALLED_S = 60.0
_END_S = 15.0
_TOLD_CHARACTERS_MAX = 500


class LayerError(Exception):
    """A process of a layer ended early or stood still; the message says which, and what it wrote."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How far the processes of a layer were at which time, together; `cpu_s` is of each, from its first mark to
    its last; `batches` is in how many portions they did it."""

    progress: tuple[Progressed, ...]
    cpu_s: tuple[float, ...]
    batches: int

    @property
    def rate(self) -> RateFigure:
        """Between 5 % and 95 %, as of the whole system."""
        return rate(self.progress)

    @property
    def seconds(self) -> float:
        """From the first mark to the last."""
        return self.progress[-1].at_s - self.progress[0].at_s if self.progress else 0.0

    @property
    def messages(self) -> int:
        """How many they carried."""
        return self.progress[-1].count if self.progress else 0

    @property
    def per_batch(self) -> float:
        """Messages in a batch, on average."""
        return round(self.messages / self.batches, 1) if self.batches else 0.0


@dataclass(slots=True)
class _Marks:
    """What the processes told, as they told it."""

    total: int
    look: Callable[[], Awaitable[None]]
    marks: list[tuple[float, int]] = field(default_factory=list)
    cpu_s: dict[int, list[float]] = field(default_factory=dict)
    count: int = 0

    async def enter(self, which: int, line: bytes) -> None:
        first = not self.marks
        try:
            at_ns, count, cpu_ns = (int(part) for part in line.split())
        except ValueError:
            raise LayerError(f"a layer said what is no mark: {line[:200]!r}") from None
        self.marks.append((at_ns / 1e9, count))
        self.cpu_s.setdefault(which, []).append(cpu_ns / 1e9)
        before, self.count = self.count, self.count + count
        last = before < self.total <= self.count
        if first:
            await self.look()
        if last:
            await self.look()

    def ran(self) -> Ran:
        progress, count = [], 0
        for at_s, more in sorted(self.marks):
            count += more
            progress.append(Progressed(at_s, count))
        batches = sum(1 for _, more in self.marks if more)
        return Ran(tuple(progress), tuple(told[-1] - told[0] for told in self.cpu_s.values()), batches)


async def run_clients(
    commands: Sequence[Sequence[str]],
    environment: Mapping[str, str],
    total: int,
    look: Callable[[], Awaitable[None]],
) -> Ran:
    """Run `python -m experiment.layers.process …` for each of `commands` until together they have done `total`.

    All are told to begin when each is ready. `look` is awaited twice: at the first mark, and when all is done.
    Raises `LayerError`; none runs any more then.
    """
    marks, processes = _Marks(total, look), list[Process]()
    try:
        for command in commands:
            processes.append(await _start(command, environment))
        for command, process in zip(commands, processes, strict=True):
            await _await_ready(command, process)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        async with asyncio.TaskGroup() as reading:
            done = asyncio.Event()
            for which, process in enumerate(processes):
                reading.create_task(_read(which, process, marks, done))
            await done.wait()
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
    except* LayerError as group:
        raise LayerError(str(group.exceptions[0])) from None
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            await _end(process)
    return marks.ran()


async def _start(command: Sequence[str], environment: Mapping[str, str]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "experiment.layers.process",
        *command,
        cwd=REPOSITORY,
        env={**of_children(), **environment},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


async def _await_ready(command: Sequence[str], process: Process) -> None:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_S):
            line = await process.stdout.readline()
    except TimeoutError:
        raise LayerError(f"the layer {command[0]} was not ready within {_READY_S:g} s") from None
    if line != b"ready\n":
        raise LayerError(f"the layer {command[0]} did not start: {await _told(process)}")


async def _read(which: int, process: Process, marks: _Marks, done: asyncio.Event) -> None:
    """Enter what one tells until it ends; sets `done` once all is done that there was to do."""
    assert process.stdout is not None
    while True:
        try:
            async with asyncio.timeout(_STALLED_S):
                line = await process.stdout.readline()
        except TimeoutError:
            if marks.count >= marks.total:
                raise LayerError("a layer does not end") from None
            raise LayerError(f"a layer stood still at {marks.count:,} of {marks.total:,}") from None
        if not line:
            if marks.count < marks.total:
                raise LayerError(f"a layer ended at {marks.count:,} of {marks.total:,}: {await _told(process)}")
            return
        await marks.enter(which, line)
        if marks.count >= marks.total:
            done.set()


async def _told(process: Process) -> str:
    assert process.stderr is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            written = (await process.stderr.read()).decode(errors="replace").strip()
            return written[-_TOLD_CHARACTERS_MAX:] or f"exit code {await process.wait()}"
    return "it says nothing"


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
