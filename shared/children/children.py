"""The pool of children on the parent's event loop: a step gets a slot, a child, its limits, and one outcome."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

import structlog

from shared.children.forking import Forking
from shared.children.frames import BODY_BYTES_MAX, BrokenFrameError, Frame, Kind, encode, read
from shared.children.outcomes import (
    CANCEL_SIGNAL,
    SOFT_LIMIT_SIGNAL,
    ChildLost,
    ChildStartError,
    Done,
    Failed,
    Outcome,
    Progress,
)

_log = structlog.get_logger(__name__)

_UNBEGUN_TRIES_MAX: Final = 3
"""How many children may be lost in a row before one begins the step."""
_AGAIN_S: Final = (0.1, 1.0)
"""When a step is signalled again that has not ended: what comes just before it begins to wait does not wake it."""
_DEATH_S: Final = 5.0
"""Within this a killed child is gone, or a child whose pipe is closed."""

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What children may, whatever they run. A child is retired after `steps_max` steps, and after a step in which
    it had more than `rss_bytes_max`."""

    steps_max: int = 200
    rss_bytes_max: int = 300 * 2**20
    result_bytes_max: int = 4 * 2**20
    import_timeout_s: float = 60.0
    """So long the fork server may take for its imports."""
    start_timeout_s: float = 20.0
    """So long a child may take until it waits for its first step."""
    cancel_grace_s: float = 5.0
    """So long a cancelled step may go on before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a child is to run: `target` is a function `module:name` from bytes and a `Report` to bytes.

    At `soft_s` seconds `SoftTimeLimitError` is raised in it, at `hard_s` its process group is killed.
    """

    target: str
    payload: bytes
    soft_s: float
    hard_s: float


class Child:
    """One living child, as its parent sees it. It runs one call at a time."""

    def __init__(self, forking: Forking, limits: Limits) -> None:
        self.pid = 0
        self.steps = 0
        self.rss_bytes = 0
        self._forking = forking
        self._limits = limits
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcome: asyncio.Future[Outcome] | None = None
        self._on_progress: OnProgress = lambda _: None
        self._begun = False
        self._early_signal: int | None = None
        self._signals: list[asyncio.Future[None]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._killed: Literal["hard_limit", "cancelled"] | None = None
        self._ended: asyncio.Future[Any]  # its exit code
        self._writer: asyncio.StreamWriter
        self._hearing: asyncio.Future[Any]
        self._listening: asyncio.Task[None]

    async def start(self) -> None:
        """Raises `ChildStartError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                self.pid, self._ended = await self._forking.fork(theirs)
            reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        self._hearing = asyncio.create_task(self._hear(reader))
        self._listening = asyncio.create_task(self._listen(), name=f"child-{self.pid}")
        try:
            await self._ready
        except BaseException:
            await self.retire(kill=True)
            raise

    @property
    def usable(self) -> bool:
        """It may run another step."""
        fresh = self.steps < self._limits.steps_max and self.rss_bytes <= self._limits.rss_bytes_max
        return fresh and not self.busy and self._lives and all(signal.done() for signal in self._signals)

    @property
    def _lives(self) -> bool:
        """As far as is known."""
        return not self._hearing.done() and not self._ended.done()

    @property
    def busy(self) -> bool:
        """Its call has no outcome yet."""
        return self._outcome is not None

    async def call(self, call: Call, on_progress: OnProgress) -> Outcome:
        """Run it to its outcome. Cancelled, it returns once the step has stopped or was killed. Never while a
        signal is on its way that the next step would take for its own."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        self._outcome = outcome
        self._begun, self._early_signal, self._on_progress, self._signals = False, None, on_progress, []
        self.steps += 1
        fields = {"target": call.target, "result_bytes_max": self._limits.result_bytes_max}
        self._timers = [
            loop.call_later(call.soft_s, self._signal, SOFT_LIMIT_SIGNAL),
            loop.call_later(call.hard_s, self._kill, "hard_limit"),
        ]
        try:
            if not self._lives:
                return ChildLost(None, "died", begun=False)
            self._writer.write(encode(Frame(Kind.CALL, fields, call.payload)))
            await asyncio.wait([outcome])
            await self._signalled()
            return outcome.result()
        except asyncio.CancelledError:
            await self._stop(outcome)
            raise
        finally:
            for timer in self._timers:
                timer.cancel()
            self._outcome = None if outcome.done() else outcome

    async def retire(self, *, kill: bool = False) -> None:
        """Have it end, and make it end if it does not by itself."""
        self._writer.close()
        if not kill:
            await asyncio.wait([self._ended], timeout=_DEATH_S)
        if not self._ended.done():
            self._forking.end(self.pid)
            await asyncio.wait([self._ended], timeout=_DEATH_S)
        self._listening.cancel()
        await asyncio.wait([self._listening])

    # -- stopping what runs

    async def _stop(self, outcome: asyncio.Future[Outcome]) -> None:
        self._signal(CANCEL_SIGNAL)
        try:
            await asyncio.wait([outcome], timeout=self._limits.cancel_grace_s)
        finally:
            if not outcome.done():
                self._kill("cancelled")
        await asyncio.wait([outcome], timeout=_DEATH_S)
        await self._signalled()

    def _signal(self, number: int) -> None:
        """Before it has begun it would take the signal for one of the step before."""
        if not self._begun:
            self._early_signal = number
            return
        self._signal_now(number)
        later = asyncio.get_running_loop().call_later
        self._timers += [later(again_s, self._signal_now, number) for again_s in _AGAIN_S]

    def _signal_now(self, number: int) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._signals.append(self._forking.signal(self.pid, number))

    async def _signalled(self) -> None:
        """Wait until no signal is on its way any more."""
        if self._signals:
            await asyncio.wait(self._signals, timeout=_DEATH_S)

    def _kill(self, cause: Literal["hard_limit", "cancelled"]) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._killed = self._killed or cause
            self._forking.end(self.pid)

    # -- what it says

    async def _listen(self) -> None:
        """Hear it until its pipe is closed or it has ended, whichever is known first: a process that it left
        behind may hold the pipe. What it had said before is heard all the same."""
        try:
            await asyncio.wait({self._hearing, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({self._hearing, self._ended}, timeout=_DEATH_S)
            if not self._ended.done():
                self._forking.end(self.pid)
                await asyncio.wait([self._ended], timeout=_DEATH_S)
        finally:
            self._hearing.cancel()
            self._lost()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        try:
            while (frame := await read(reader)) is not None:
                self._on_frame(frame)
        except (BrokenFrameError, KeyError, ValueError, TypeError) as error:
            _log.error("children.broken_frame", pid=self.pid, error=str(error))
            self._forking.end(self.pid)

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is Kind.READY and not self._ready.done():
            self._ready.set_result(None)
        elif self._outcome is None or self._outcome.done():
            return
        elif frame.kind is Kind.BEGUN:
            self._begun = True
            if self._early_signal is not None:
                self._signal(self._early_signal)
        elif frame.kind is Kind.PROGRESS:
            self._on_progress(Progress(*frame.fields["progress"]))
        elif frame.kind is Kind.OUTCOME:
            self.rss_bytes = frame.fields["peak_rss_bytes"]
            self._outcome.set_result(_outcome(frame))

    def _lost(self) -> None:
        exit_code = self._ended.result() if self._ended.done() and not self._ended.cancelled() else None
        lost = ChildLost(exit_code, self._killed or "died", self._begun)
        if not self._ready.done():
            self._ready.set_exception(ChildStartError(f"it was not ready: {lost}"))
            self._ready.exception()
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(lost)


def _outcome(frame: Frame) -> Outcome:
    said, peak_rss_bytes = frame.fields["progress"], frame.fields["peak_rss_bytes"]
    progress = None if said is None else Progress(*said)
    failure = frame.fields.get("failure")
    if failure is None:
        return Done(frame.body, peak_rss_bytes, progress)
    types = tuple(failure["types"])
    return Failed(failure["type"], types, failure["message"], failure["stack"], peak_rss_bytes, progress)


class Children:
    """The pool: at most `slots` steps at once, each in a child of its own. Entering it starts the fork server,
    which else the first call does.

    `preload` names the modules that steps need; they are imported once, in the fork server. `initialise` names a
    function `module:name` that every child calls before its first step.
    """

    def __init__(
        self,
        slots: int,
        preload: Sequence[str] = (),
        *,
        initialise: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._preload = preload
        self._initialise = initialise
        self._slots = asyncio.Semaphore(slots)
        self._starting = asyncio.Lock()
        self._forking: Forking | None = None
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Raises `ChildStartError`."""
        await self._server()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pids(self) -> frozenset[int]:
        """Of the children that live."""
        return frozenset(child.pid for child in self._all)

    async def run(self, call: Call, on_progress: OnProgress = lambda _: None) -> Outcome:
        """Wait for a slot and run the call. Raises `ChildStartError`; a step that no child began is tried again.

        Cancelled, it stops the step and returns when that has stopped.
        """
        if len(call.payload) > BODY_BYTES_MAX:
            raise ValueError(f"{len(call.payload):,} bytes for a step, and {BODY_BYTES_MAX:,} may be")
        async with self._slots:
            for _ in range(_UNBEGUN_TRIES_MAX):
                child = await self._take()
                try:
                    outcome = await child.call(call, on_progress)
                finally:
                    self._put_back(child)
                if not isinstance(outcome, ChildLost) or outcome.begun or outcome.cause != "died":
                    break
            return outcome

    async def close(self) -> None:
        """End all children, running steps among them, and what they started; nothing of them is left."""
        self._closed = True
        for child in list(self._all):
            self._retire(child)
        self._idle.clear()
        while self._background:
            await asyncio.wait(self._background)
        async with self._starting:
            if self._forking is not None:
                await self._forking.close()

    async def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.usable:
                return child
            self._retire(child)
        if self._closed:
            raise ChildStartError("the children are closed")
        forking = await self._server()
        child = Child(forking, self.limits)
        try:
            async with asyncio.timeout(self.limits.start_timeout_s):
                await child.start()
        except TimeoutError as error:
            if not child.pid:
                forking.abort()  # it does not even fork
            raise ChildStartError(f"no child within {self.limits.start_timeout_s:g} s") from error
        self._all.add(child)
        return child

    def _put_back(self, child: Child) -> None:
        if child.usable and not self._closed:
            self._idle.append(child)
        else:
            self._retire(child)

    def _retire(self, child: Child) -> None:
        if child in self._all:
            self._all.discard(child)
            self._in_background(child.retire(kill=child.busy))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _server(self) -> Forking:
        """The fork server; a new one when it is lost."""
        async with self._starting:
            if self._forking is not None and self._forking.lost:
                await self._forking.close()
                self._forking = None
            if self._forking is None:
                forking = Forking(self._preload, self._initialise)
                try:
                    async with asyncio.timeout(self.limits.import_timeout_s):
                        await forking.start()
                except TimeoutError as error:
                    await forking.close()
                    raise ChildStartError("the modules of the steps were not imported in time") from error
                except BaseException:
                    await forking.close()
                    raise
                self._forking = forking
            return self._forking
