"""Reads the arguments of `python -m faults`, plays the faults and reports.

Exit codes: 0 all sound; 1 an event was lost, doubled or left behind, or the run failed; 2 a bad option;
130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deploy.errors import DeployError
from deploy.paths import REPOSITORY
from deploy.topology import BROKERS
from experiment.atomic_directory import NotAReportError, require_report_or_nothing
from experiment.logs import log_errors_alone
from experiment.signals import Interrupted
from experiment.workload import WorkloadError
from faults.catalogue import FAULTS
from faults.kinds import KINDS
from faults.report import print_report, write_report
from faults.run import run, stages

_DEFAULT_OUT = Path("reports/faults/latest")
_REPEAT_MAX = 20
_RUN_ROOT = REPOSITORY / ".run"


def main(arguments: Sequence[str]) -> int:
    """Play the chosen faults and return the exit code."""
    log_errors_alone()
    chosen = _parser().parse_args(arguments)
    faults = [fault for fault in FAULTS if chosen.only is None or fault.name in chosen.only]
    brokers = chosen.broker or BROKERS
    for kind in (kind for kind in KINDS if kind.name in chosen.without):
        if chosen.only and any(fault in kind.faults for fault in faults):
            print(f"faults: a fault of {kind.name} cannot be played without them", file=sys.stderr)
            return 2
        faults = [fault for fault in faults if fault not in kind.faults]
    planned = stages(brokers, faults, tuple(kind for kind in KINDS if kind.name not in chosen.without))
    # Each time on servers of its own, which nothing has befallen yet.
    planned = [replace(stage) for _ in range(chosen.repeat) for stage in planned]
    if not planned:
        print("faults: none of these faults is for this broker", file=sys.stderr)
        return 2
    out: Path = chosen.out
    try:
        require_report_or_nothing(out)
        result = run(planned, _RUN_ROOT)
    except (WorkloadError, NotAReportError) as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    except DeployError as error:
        print(f"faults: {error}", file=sys.stderr)
        return 1
    except Interrupted as signal_name:
        print(f"faults: interrupted by {signal_name}; everything that it had started is stopped", file=sys.stderr)
        return 130
    write_report(out, result, shlex.join(["python", "-m", "faults", *arguments]))
    print_report(result, out)
    return 0 if result.sound else 1


def _parser() -> argparse.ArgumentParser:
    names = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(
        prog="python -m faults",
        description="Break a running system under load and check that nothing is lost and nothing done twice.",
        epilog="Faults: " + ", ".join(names),
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="FAULT", help="these faults, not all")
    parser.add_argument("--broker", nargs="+", choices=BROKERS, help="these brokers, not both")
    kinds = [kind.name for kind in KINDS]
    less = "without these beside the orders: less load, fewer processes"
    parser.add_argument(
        "--without", nargs="+", choices=kinds, default=[], metavar="KIND", help=f"{less} ({', '.join(kinds)})"
    )
    parser.add_argument(
        "--repeat", type=_times, default=1, metavar="N", help="each fault so often, for its spread"
    )
    parser.add_argument("--out", type=Path, default=_DEFAULT_OUT, help="directory of the report, replaced")
    return parser


def _times(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _REPEAT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_REPEAT_MAX}")
    return int(text)
