"""Progress on standard error: a spinner with the time taken on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Steps:
    """Shows steps, which may run at the same time in several threads.

    Standard output stays free for what a command answers. `quiet=True` shows nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._lock = threading.Lock()
        self._running = 0
        self._progress: Progress | None = None

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show `text` while the body runs, then that it is done or failed, with the seconds it took."""
        started = time.monotonic()
        task = self._begin(text)
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            self._end(task, text, outcome, time.monotonic() - started)

    def say(self, text: str) -> None:
        """One line, such as what will be done and why."""
        if not self._quiet:
            self._console.print(text, markup=False)

    def _begin(self, text: str) -> TaskID | None:
        if self._quiet:
            return None
        if not self._console.is_terminal:
            self._console.print(f"… {text}", markup=False, soft_wrap=True)
            return None
        with self._lock:
            if self._progress is None:
                columns = (
                    SpinnerColumn(),
                    TextColumn("{task.description}", markup=False),
                    TimeElapsedColumn(),
                )
                self._progress = Progress(*columns, console=self._console, transient=True)
                self._progress.start()
            self._running += 1
            return self._progress.add_task(text, total=None)

    def _end(self, task: TaskID | None, text: str, outcome: str, took_s: float) -> None:
        if self._quiet:
            return
        with self._lock:
            mark = "✓" if outcome == "done" else "✗"
            self._console.print(f"{mark} {text} ({took_s:.1f} s)", markup=False, soft_wrap=True)
            if task is None or self._progress is None:
                return
            self._progress.remove_task(task)
            self._running -= 1
            if self._running == 0:
                self._progress.stop()
                self._progress = None
