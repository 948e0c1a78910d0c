"""Ctrl-C, a polite kill, a closed terminal: the first ends the run in good order, further ones change nothing.

Python's own way raises KeyboardInterrupt wherever the program happens to be. Inside the event loop, a second one
can drop the very callback that would have ended the first, and the loop then waits for ever.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def raise_on_first_signal() -> None:
    """From now on the first of these signals raises KeyboardInterrupt, and those after it are ignored."""
    for number in _SIGNALS:
        signal.signal(number, _raise_once)


def run_until_signal(work: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, where a signal cancels `work`; raises KeyboardInterrupt once it has ended."""
    try:
        asyncio.run(_cancel_on_signal(work))
    except asyncio.CancelledError:
        _ignore()
        raise KeyboardInterrupt from None
    raise_on_first_signal()


async def _cancel_on_signal(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        _ignore()


def _raise_once(_number: int, _frame: FrameType | None) -> None:
    _ignore()
    raise KeyboardInterrupt


def _ignore() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
