"""What runs in a child: takes one call after the other from its pipe, and answers each with an outcome.

A call names a function `module:name`, which is given bytes and a `Report` and returns bytes. It runs in the main
thread, where the signals of the soft limit and of a cancellation raise.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from types import FrameType
from typing import Any, Final

from shared.children.frames import BODY_BYTES_MAX, Frame, Kind, encode, receive
from shared.children.outcomes import (
    CANCEL_SIGNAL,
    SOFT_LIMIT_SIGNAL,
    ResultTooLargeError,
    SoftTimeLimitError,
    StepCancelledError,
)

Report = Callable[..., None]
"""`report(current, total, message="")`: how far the step is. Cheap to call often."""
Function = Callable[[bytes, Report], bytes]

MESSAGE_CHARS_MAX: Final = 2_000
STACK_CHARS_MAX: Final = 8_000
_TYPES_MAX = 10
_CAUSES_MAX = 5
_STACK_FRAMES_MAX = 30
_REPORT_INTERVAL_S = 0.1
_STOPPING: dict[int, type[BaseException]] = {
    SOFT_LIMIT_SIGNAL: SoftTimeLimitError,
    CANCEL_SIGNAL: StepCancelledError,
}
_WHY = "the step is to stop"
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What clears the kernel's mark of the most memory; proc(5)."""


class Child:
    """The life of one child."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._lock = threading.RLock()  # a step's threads may report
        self._sending = False
        """The main thread is."""
        self._answering = False
        self._running = False
        """The step's own code is, and may be interrupted."""
        self._stop: type[BaseException] | None = None
        self._heard: set[int] = set()
        """The signals of this call: each may come again, and is raised once."""
        self._progress: list[Any] | None = None
        self._reported_at = 0.0

    def serve(self) -> None:
        """Answer calls until the parent closes the pipe or is gone."""
        self._heed_signals()
        self._send(Frame(Kind.READY, {}))
        while (call := receive(self._pipe)) is not None:
            self._answer(call)

    def _answer(self, call: Frame) -> None:
        self._progress, self._reported_at, self._stop, self._heard = None, 0.0, None, set()
        self._answering = True
        self._heed_signals()  # a step before this one may have taken them
        with contextlib.suppress(OSError):
            _CLEAR_REFS.write_text(_RESET_PEAK)
        self._send(Frame(Kind.BEGUN, {}))
        fields, body = self._outcome(call)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        fields |= {"peak_rss_bytes": peak_rss_bytes, "progress": self._progress}
        self._answering = False
        self._send(Frame(Kind.OUTCOME, fields, body))

    def _outcome(self, call: Frame) -> tuple[dict[str, Any], bytes]:
        try:
            try:
                self._running = True
                self._raise_stop()
                result = _function(call.fields["target"])(call.body, self._report)
            finally:
                self._running = False
            if not isinstance(result, bytes):
                raise TypeError(f"{call.fields['target']} returned {type(result).__name__}, not bytes")  # noqa: TRY301
            result_bytes_max = min(call.fields["result_bytes_max"], BODY_BYTES_MAX)
            if len(result) > result_bytes_max:
                raise ResultTooLargeError(f"{len(result):,} bytes, and {result_bytes_max:,} may be")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001  whatever ends a step is its outcome
            self._running = False
            return {"failure": describe(error)}, b""
        return {}, result

    # -- progress

    def _report(self, current: float, total: float, message: str = "") -> None:
        progress = [float(current), float(total), bounded(message, MESSAGE_CHARS_MAX)]
        now = time.monotonic()
        with self._lock:
            self._progress = progress
            if now - self._reported_at < _REPORT_INTERVAL_S:
                return  # the outcome brings the last one
            self._reported_at = now
            self._send(Frame(Kind.PROGRESS, {"progress": progress}))

    # -- signals and the pipe: a frame is sent whole, whatever is to be raised

    def _heed_signals(self) -> None:
        for number in _STOPPING:
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        if not self._answering or number in self._heard:
            return
        self._heard.add(number)
        if self._running and not self._sending:
            raise _STOPPING[number](_WHY)
        self._stop = _STOPPING[number]

    def _raise_stop(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            raise stop(_WHY)

    def _send(self, frame: Frame) -> None:
        with self._lock, self._whole():
            self._pipe.sendall(encode(frame))

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """What a signal would raise in this thread meanwhile is raised at the end."""
        main = threading.current_thread() is threading.main_thread()
        self._sending = self._sending or main
        try:
            yield
        finally:
            if main:
                self._sending = False
                if self._running:
                    self._raise_stop()


def _function(target: str) -> Function:
    function: Function = resolve_name(target)
    return function


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as texts of bounded sizes."""
    types = [f"{one.__module__}.{one.__qualname__}" for one in type(error).__mro__[:_TYPES_MAX]]
    return {
        "type": bounded(types[0], MESSAGE_CHARS_MAX),
        "types": [bounded(one, MESSAGE_CHARS_MAX) for one in types],
        "message": _message(error),
        "stack": _stack(error),
    }


def bounded(text: object, chars_max: int) -> str:
    """The text, cut, and fit for UTF-8 and for PostgreSQL."""
    text = str(text)
    cut = text if len(text) <= chars_max else text[: chars_max - 1] + "…"
    return cut.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _message(error: BaseException) -> str:
    try:
        return bounded(error, MESSAGE_CHARS_MAX)
    except Exception as second:  # noqa: BLE001  its `__str__` is the step's own code
        return f"(no message: {type(second).__name__})"


def _stack(error: BaseException) -> str:
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _CAUSES_MAX:
        try:
            frames = "".join(traceback.format_tb(cause.__traceback__, limit=-_STACK_FRAMES_MAX))
        except Exception as second:  # noqa: BLE001
            frames = f"(no stack: {type(second).__name__})\n"
        parts.append(f"{frames}{type(cause).__qualname__}: {_message(cause)}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    stack = "\n\nthen, while that was handled:\n\n".join(reversed(parts))
    return bounded(
        stack if len(stack) <= STACK_CHARS_MAX else "…" + stack[-STACK_CHARS_MAX + 2 :], STACK_CHARS_MAX
    )
