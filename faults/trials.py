"""Takes together what one fault did on one broker each time that it was played."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from faults.phase import PhaseResult

_TIMES = ("gap_s", "recovered_s")


def by_fault(phases: Sequence[PhaseResult]) -> dict[str, list[PhaseResult]]:
    """The trials of each fault, in the order in which it was first played."""
    found: dict[str, list[PhaseResult]] = {}
    for phase in phases:
        found.setdefault(phase.fault, []).append(phase)
    return found


def figures_of(trials: Sequence[PhaseResult]) -> dict[str, Any]:
    """Of one fault: counts of all trials together, gap and recovery as their median (None where one never
    recovered), and what they were in each trial."""
    each = [trial.figures() for trial in trials]
    if len(each) == 1:
        return each[0]
    times = {name: [figures[name] for figures in each] for name in _TIMES}
    return {
        **_added(each),
        **{name: None if None in values else round(median(values), 3) for name, values in times.items()},
        "trials": len(each),
        **{f"{name}_by_trial": values for name, values in times.items()},
    }


def gap(trials: Sequence[PhaseResult]) -> str:
    """As a table shows it: the median, with the lowest and the highest."""
    return _spread([trial.gap_s for trial in trials])


def recovery(trials: Sequence[PhaseResult]) -> str:
    """The same of the time until all was well again."""
    known = [trial.recovered_s for trial in trials if trial.recovered_s is not None]
    return _spread(known) if len(known) == len(trials) else "[red]never[/red]"


def _spread(values: Sequence[float]) -> str:
    around = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{median(values):.1f}{around}"


def _added(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts by name, also those that are within others."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for figures in each for name in figures if name not in _TIMES):
        values = [figures[name] for figures in each if name in figures]
        found[name] = _added(values) if isinstance(values[0], dict) else sum(values)
    return found
