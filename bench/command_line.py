"""Reads the arguments of `python -m bench`, has the benchmark run and reports."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import past, report
from bench.commands import POOLS
from bench.errors import BenchError
from bench.plan import Plan
from bench.rows import GROUPS, NAMES
from bench.run import run
from deploy.errors import DeployError
from deploy.progress import Steps
from deploy.topology import BROKERS
from experiment.logs import log_errors_alone
from experiment.signals import Interrupted
from shared.errors import UnavailableError

_EVENTS_MIN = 2_000
"""Four batches: with fewer, the time between the first and the last commit means nothing."""
SUMMARY = Path("reports/bench/latest/summary.json")


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when every limit holds, 1 when one is missed, no start-up could be measured or the run is void,
    130 when interrupted."""
    log_errors_alone()
    chosen = _parser().parse_args(arguments)
    try:
        return _run_and_report(plan_of(arguments), chosen.summary, chosen.profile)
    except (BenchError, DeployError, UnavailableError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print("bench: interrupted; everything that it had started is stopped", file=sys.stderr)
        return 130


def plan_of(arguments: Sequence[str]) -> Plan:
    """What is to be run. Ends the process, with a sentence, for arguments that cannot be."""
    chosen = _parser().parse_args(arguments)
    return Plan(
        rounds=chosen.rounds,
        events=chosen.events,
        long_events=chosen.long,
        past_rows=chosen.past,
        brokers=tuple(broker for broker in BROKERS if chosen.only in (None, broker)),
        rows=_rows(chosen.row or [], chosen.group or []),
        seed=chosen.seed,
        pool=chosen.pool,
    )


def _rows(rows: Sequence[str], groups: Sequence[str]) -> tuple[str, ...]:
    """Their names, each once."""
    chosen = groups or ([] if rows else list(GROUPS)[:1])
    return tuple(dict.fromkeys((*rows, *(name for group in chosen for name in GROUPS[group]))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Compare the pipeline with hand-written loops and Celery."
    )
    parser.add_argument("--rounds", type=_at_least(1), default=5)
    parser.add_argument("--events", type=_at_least(_EVENTS_MIN), default=10_000, help="in each round")
    parser.add_argument(
        "--long",
        type=_at_least(_EVENTS_MIN),
        default=300_000,
        help="of the long backlog; a third as many jobs wait",
    )
    parser.add_argument("--past", type=_at_least(1), default=past.ROWS, help="rows of the full inbox")
    parser.add_argument("--pool", choices=POOLS, help="Celery's; if not said, the fastest in a short trial")
    parser.add_argument("--only", choices=BROKERS, help="one broker (Celery is on RabbitMQ in any case)")
    parser.add_argument("--row", action="append", choices=NAMES, help="one row, or several")
    parser.add_argument(
        "--group", action="append", choices=GROUPS, help="all of its rows; `events` where nothing is said"
    )
    parser.add_argument("--profile", type=Path, help="directory for a flame graph of each contender (py-spy)")
    parser.add_argument("--seed", type=int, default=1, help="of the order within the rounds")
    parser.add_argument("--summary", type=Path, default=SUMMARY, help="the file to write")
    return parser


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return int(text)

    return number


def _run_and_report(plan: Plan, summary: Path, profiles: Path | None) -> int:
    started_at = datetime.now(UTC)
    steps = Steps()
    steps.say(f"about {plan.estimate_s / 60:.0f} minutes on two cores that are idle otherwise")
    measured = run(plan, profiles, steps)
    rows = report.compare(measured.rates)
    notes = [f"Celery: {measured.pool}."] if measured.pool else []
    for broker, took_s in measured.start_up_s.items():
        notes.append(f"Warm `make up-{broker}` to the first effect: {took_s:.1f} s.")
    if measured.no_start_up:
        notes.append(f"No start-up was measured: {measured.no_start_up}")
    if measured.limits:
        report.print_limits(measured.limits)
    report.print_table(rows, measured.rates, notes)
    about = {
        "rounds": plan.rounds,
        "events": {str(contender): plan.events_of(contender) for contender in plan.contenders},
        "celery_pool": measured.pool,
        "limits_us": [
            {"part": part, "broker": broker, **asdict(taken)} for (part, broker), taken in measured.limits.items()
        ],
        "start_up_s": measured.start_up_s,
        "contenders_took_s": measured.took_s,
        "seed": plan.seed,
        "versions": {**measured.versions, "python": platform.python_version()},
        "hardware": {"cpus": os.cpu_count(), "machine": platform.machine()},
        "started_at": started_at.isoformat(timespec="seconds"),
        "took_s": round((datetime.now(UTC) - started_at).total_seconds()),
    }
    report.write_summary(summary, rows, measured.rates, about)
    # Whoever is looked at by py-spy is slower: then the graphs are what was wanted.
    return 0 if profiles or (all(row.holds for row in rows) and not measured.no_start_up) else 1
