"""Shows on standard error how far a run is and how long it will take: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress_bar import ProgressBar as Bar
from rich.text import Text

from deploy.native import BrokerName
from deploy.progress import Steps

_WIDTH = 28
_ALMOST = 0.97


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run, such as the steady load on Kafka in round 2.

    `kind` says what is done in words for a person, `estimate_s` about how long it takes; `again`: it was void.
    """

    kind: str
    estimate_s: float
    broker: BrokerName | None = None
    round_number: int | None = None
    again: bool = False

    @property
    def title(self) -> str:
        where = f"round {self.round_number}" if self.round_number else ""
        parts = (where, self.broker or "", self.kind, "again" if self.again else "")
        return " · ".join(part for part in parts if part)


class ProgressBar(Steps):
    """Shows the phases of a run one after the other, and within them the steps that the runtime reports."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        super().__init__(quiet=True)
        self._left = list(phases)
        self._total_s = sum(phase.estimate_s for phase in phases)
        self._done_s = 0.0
        self._current: Phase | None = None
        self._began = self._started = time.monotonic()
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            _BarColumn(self),
            TextColumn("{task.description}", markup=False),
            _RemainingColumn(self),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> ProgressBar:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def add(self, phase: Phase) -> None:
        """One more than was planned."""
        self._left.append(phase)
        self._total_s += phase.estimate_s

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Show `phase` while the body runs."""
        self._current, self._began = phase, time.monotonic()
        self._left.remove(phase)
        self._show(phase.title)
        if not self._console.is_terminal:
            elapsed = _clock(time.monotonic() - self._started)
            self._console.print(
                f"[{elapsed}] {phase.title} (about {_clock(self.remaining_s())} left)", markup=False
            )
        try:
            yield
        finally:
            self._done_s += phase.estimate_s
            self._current = None

    def detail(self, text: str) -> None:
        """What is going on, within the phase if there is one: on a terminal only."""
        self._show(f"{self._current.title}: {text}" if self._current is not None else text)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A step of the runtime. Those that take long (an installation) get lines of their own."""
        self.detail(text)
        started = time.monotonic()
        yield
        took_s = time.monotonic() - started
        if took_s > 20:
            self._console.print(f"✓ {text} ({took_s:.0f} s)", markup=False)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _show(self, text: str) -> None:
        self._bar.update(self._task, description=text)

    def _into_phase_s(self) -> float:
        if self._current is None:
            return 0.0
        # A phase that takes longer than estimated waits just before its end.
        return min(time.monotonic() - self._began, _ALMOST * self._current.estimate_s)

    def share(self) -> float:
        """How much is done, 0 to 1, in estimated time."""
        return (self._done_s + self._into_phase_s()) / self._total_s if self._total_s else 0.0

    def remaining_s(self) -> float:
        """Estimated time that is left."""
        current_s = self._current.estimate_s if self._current else 0.0
        return sum(phase.estimate_s for phase in self._left) + current_s - self._into_phase_s()


class _BarColumn(ProgressColumn):
    def __init__(self, progress: ProgressBar) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> Bar:
        return Bar(total=1.0, completed=self._progress.share(), width=_WIDTH)


class _RemainingColumn(ProgressColumn):
    def __init__(self, progress: ProgressBar) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> Text:
        return Text(f"{_clock(self._progress.remaining_s())} left", style="progress.remaining")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
