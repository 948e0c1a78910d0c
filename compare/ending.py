"""How a run ends: what is said on standard error, with which exit code, and where its report goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compare.decision import PreferencesError
from compare.document import DocumentError
from compare.run import RunResult
from deploy.errors import DeployError
from experiment.atomic_directory import NotAReportError
from experiment.own_brokers import OwnBrokerError
from experiment.side import StalledError
from experiment.signals import Interrupted
from experiment.workload import WorkloadError
from shared.errors import TandemError


class RefusedError(Exception):
    """What was asked for is not possible here; the message is one sentence."""


class ReportError(Exception):
    """The report cannot be written; the message says why."""


_REFUSED = (RefusedError, WorkloadError, NotAReportError, DocumentError, PreferencesError, OwnBrokerError)


def unless_it_fails(work: Callable[[], int]) -> int:
    """The exit code of `work`; or, having said why, that of what it raised."""
    try:
        return work()
    except _REFUSED as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except (DeployError, StalledError, TandemError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    except ReportError as error:
        print(f"compare: the report cannot be written: {error}", file=sys.stderr)
        return 1
    except Interrupted as signal_name:
        print(f"compare: interrupted by {signal_name}; everything that it had started is stopped", file=sys.stderr)
        return 130


@contextmanager
def writing() -> Iterator[None]:
    """Raises `ReportError` where the report cannot be written."""
    try:
        yield
    except OSError as error:
        raise ReportError(str(error)) from error


def code_of(outcome: RunResult, summary: Mapping[str, Any]) -> int:
    """The exit code of a run of which there is a report."""
    if outcome.interrupted:
        return 130
    return 1 if outcome.left_behind else exit_code(sound=outcome.sound, controls=summary["controls"])


def exit_code(*, sound: bool, controls: Sequence[Mapping[str, Any]]) -> int:
    """Of a run that came to its end; `controls` are the summary's."""
    return 0 if sound and all(control["passed"] for control in controls) else 1


def place_of(out: Path, summary: Mapping[str, Any]) -> Path:
    """Where the report goes: that of a run that was cut short beside `out`, which is said; an earlier whole one
    stays."""
    if not summary["cut_short"]:
        return out
    place = partial_place(out)
    print(f"compare: cut short: {summary['cut_short']}; what was measured is in {place}", file=sys.stderr)
    return place


def partial_place(out: Path) -> Path:
    """Where the report of a run that was cut short goes."""
    return out.with_name(f"{out.name}-partial")
