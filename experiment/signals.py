"""Ends a run in good order on SIGINT (Ctrl-C), SIGTERM or SIGHUP (a closed terminal).

The first signal ends it, further ones change nothing. Python's own way raises KeyboardInterrupt wherever the
program happens to be: inside the event loop, a second one can drop the very callback that would have ended the
first, and the loop then waits for ever.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from experiment.event_loop import precise_loop
from shared.garbage import rest_garbage_collector

ResultT = TypeVar("ResultT")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked for the end; the message is its name. Like KeyboardInterrupt it is no Exception."""


def raise_on_first_signal() -> None:
    """From now on the first of these signals raises `Interrupted`, and those after it are ignored."""
    for number in _SIGNALS:
        signal.signal(number, _raise_once)


def ignore_signals() -> None:
    """From now on none of these signals does anything: what was measured is there, and what is left (to stop the
    servers, and to write the report) is bounded in time."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def hold_signals() -> Iterator[None]:
    """What comes within takes effect at the end: a process that is being started is known by then."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:  # not blocked: what is started would have them blocked, too
        signal.signal(number, lambda one, _frame: came.append(one))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def run_until_signal(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """`asyncio.run` with exact timers, where a signal cancels `work`; raises `Interrupted` once it has ended.

    What was imported is left out of every garbage collection from here on. Else one of them stops the loop for
    over 0.1 s, and whatever `work` sends or measures in that time looks as if others had been slow.
    """
    rest_garbage_collector()
    received: list[str] = []
    try:
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            result = runner.run(_cancel_on_signal(work, received))
    except asyncio.CancelledError:
        if not received:
            raise  # nobody asked for it: a defect, to be seen as one
        raise Interrupted(received[0]) from None
    if received:
        raise Interrupted(received[0])
    raise_on_first_signal()
    return result


async def _cancel_on_signal(work: Coroutine[Any, Any, ResultT], received: list[str]) -> ResultT:
    task = asyncio.ensure_future(work)

    def stop(number: signal.Signals) -> None:
        received.append(number.name)
        if len(received) == 1:  # a second time it would cancel what the first has ended in good order
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    finally:
        # Removing a handler puts Python's own in its place: what arrives before that is replaced has to wait.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            ignore_signals()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise_once(number: int, _frame: FrameType | None) -> None:
    ignore_signals()
    raise Interrupted(signal.Signals(number).name)
