"""Reads the arguments of `python -m bench`, runs the benchmark on servers of its own and reports."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import report
from bench.answers import Answers
from bench.effects import Effects
from bench.errors import BenchError
from bench.jobs import JobRuns, JobTables
from bench.ledger import Ledger
from bench.money import Money
from bench.people import People
from bench.publishing import Publishing
from bench.rounds import Bench, Plan
from bench.rows import LONG_ONES, NAMES
from bench.running import Runner
from deploy.errors import DeployError
from deploy.native import Ports, Runtime
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.topology import BROKERS, SERVERS
from experiment.instance import instance, remove_leftovers
from experiment.signals import Interrupted, ignore_signals, run_until_signal
from shared.errors import UnavailableError
from shared.settings import Settings
from shared.telemetry import Telemetry

_EVENTS_MIN = 2_000
"""Four batches: with fewer, the time between the first and the last commit means nothing."""
_CELERY_SHARE = 0.15
_NAME = "bench"
_RUN_ROOT = REPOSITORY / ".run"
_DATABASE = "bench"
_LEDGER = "bench_wallet"
_JOBS = "bench_jobs"
_HTTP_OFFSET = 90
SUMMARY = Path("reports/bench/latest/summary.json")


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when every limit holds, 1 when one is missed or the run is void, 130 when interrupted."""
    # Clients log every attempt that they repeat; what matters becomes an error of ours.
    logging.getLogger().addHandler(logging.NullHandler())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # the relay's, too
    chosen = _parser().parse_args(arguments)
    plan = Plan(
        rounds=chosen.rounds,
        events=chosen.events,
        celery_events=int(chosen.events * _CELERY_SHARE),
        long_events=chosen.long,
        brokers=tuple(broker for broker in BROKERS if chosen.only in (None, broker)),
        rows=tuple(chosen.row or (name for name in NAMES if name not in LONG_ONES)),
        seed=chosen.seed,
    )
    try:
        return _run(plan, chosen.summary, chosen.profile)
    except (BenchError, DeployError, UnavailableError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print("bench: interrupted; everything that it had started is stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Compare the pipeline with hand-written loops and Celery."
    )
    parser.add_argument("--rounds", type=_at_least(1), default=5)
    parser.add_argument("--events", type=_at_least(_EVENTS_MIN), default=20_000, help="in each round")
    parser.add_argument(
        "--long",
        type=_at_least(_EVENTS_MIN),
        default=300_000,
        help="of the long backlog; a third as many jobs wait",
    )
    parser.add_argument("--only", choices=BROKERS, help="one broker (Celery is on RabbitMQ in any case)")
    parser.add_argument(
        "--row", action="append", choices=NAMES, help="one row, or several; if not said, all but the long ones"
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


def _run(plan: Plan, summary: Path, profiles: Path | None) -> int:
    started_at = datetime.now(UTC)
    ports = Ports.free_block()
    servers = {name for name in SERVERS if name in {"postgres", "redis", "rabbit", *plan.brokers}}
    remove_leftovers(_RUN_ROOT, _NAME)
    with instance(_RUN_ROOT, _NAME, Steps(), ports=ports, servers=servers) as runtime:
        runtime.start_servers()
        runtime.ensure_databases([_DATABASE, _LEDGER, _JOBS])
        rates = run_until_signal(_rounds(plan, runtime, ports, profiles))
        ignore_signals()
        versions = runtime.versions()
    rows = report.compare(rates)
    report.print_table(rows, rates)
    about = {
        "rounds": plan.rounds,
        "events": plan.events,
        "celery_events": plan.celery_events,
        "long_events": plan.long_events,
        "seed": plan.seed,
        "versions": {**versions, "python": platform.python_version()},
        "hardware": {"cpus": os.cpu_count(), "machine": platform.machine()},
        "started_at": started_at.isoformat(timespec="seconds"),
    }
    report.write_summary(summary, rows, rates, about)
    return 0 if all(row.holds for row in rows) else 1


async def _rounds(plan: Plan, runtime: Runtime, ports: Ports, profiles: Path | None) -> report.Rates:
    urls = runtime.server_urls()
    settings = {
        broker: Settings(
            broker=broker,
            http_port=ports.block + _HTTP_OFFSET,
            postgres_dsn=runtime.dsn(_DATABASE),
            redis_url=urls["redis"],
            rabbit_url=urls["rabbit"],
            kafka_bootstrap=urls.get("kafka"),
        )
        for broker in {"rabbit": None, **dict.fromkeys(plan.brokers)}
    }
    logs = runtime.root / "contenders"
    logs.mkdir()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    telemetry = Telemetry(settings["rabbit"].model_copy(update={"trace_ratio": 0.0}), _NAME)  # traces nothing
    runner = Runner(settings, {"TANDEM_INSTANCE_ROOT": str(runtime.root)}, logs, profiles)
    of_jobs = settings["rabbit"].model_copy(update={"postgres_dsn": runtime.dsn(_JOBS)})
    async with (
        Effects(runtime.dsn(_DATABASE), urls["redis"]) as effects,
        Ledger(runtime.dsn(_LEDGER)) as ledger,
        People(runtime.dsn(_LEDGER)) as people,
        JobTables(of_jobs, telemetry) as tables,
    ):
        await effects.create()
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("starting", total=plan.work)
            bench = Bench(
                plan=plan,
                runner=runner,
                effects=effects,
                publishing=Publishing(runtime.dsn(_DATABASE), telemetry),
                money=Money(runner, ledger, runtime.dsn(_LEDGER)),
                answers=Answers(runner, ledger, people, runtime.dsn(_LEDGER)),
                jobs=JobRuns(runner, tables, plan.waiting_jobs),
                say=lambda text: progress.update(bar, description=text),
                advance=lambda count: progress.advance(bar, count),
            )
            return await bench.run()
