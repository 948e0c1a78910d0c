"""Runs a plan on servers of its own, which are gone with their data afterwards."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import past, start_up
from bench.answers import Answers
from bench.draining import Draining
from bench.effects import Effects
from bench.errors import BenchError
from bench.jobs import JobRuns, JobTables
from bench.ledger import Ledger
from bench.limits import Limits, Measuring
from bench.money import Money
from bench.order_tables import OrderTables
from bench.orders import Orders
from bench.people import People
from bench.plan import Plan
from bench.publishing import Publishing
from bench.report import Rates
from bench.rounds import Bench
from bench.rows import FULL, LIMITS, START_UP
from bench.running import Runner, short
from deploy.native import Ports, Runtime
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.topology import SERVERS
from experiment.instance import instance, remove_leftovers
from experiment.signals import ignore_signals, run_until_signal
from shared.settings import Settings
from shared.telemetry import Telemetry

_NAME = "bench"
_RUN_ROOT = REPOSITORY / ".run"
_DATABASE = "bench"
_LEDGER = "bench_wallet"
_JOBS = "bench_jobs"
_ORDERS = "bench_order"
_PAST = "bench_past"
_HTTP_OFFSET = 90
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.percentage:>3.0f} %"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


@dataclass(slots=True)
class Measured:
    """What a run found."""

    rates: Rates = ()
    pool: str | None = None
    """Of Celery's: the one that was the fastest, or was asked for."""
    limits: Limits = field(default_factory=dict)
    start_up_s: dict[str, float] = field(default_factory=dict)
    """By broker."""
    no_start_up: str | None = None
    """Why there is none, where one was asked for: as when something else has the ports of `make up-*`."""
    took_s: dict[str, float] = field(default_factory=dict)
    """Each contender, all rounds together, with starting, publishing and checking."""
    versions: dict[str, str] = field(default_factory=dict)


def run(plan: Plan, profiles: Path | None, steps: Steps) -> Measured:
    """Run the plan, and leave nothing behind.

    Raises `BenchError`, `DeployError`, `UnavailableError` or `Interrupted`.
    """
    remove_leftovers(_RUN_ROOT, _NAME)
    measured = Measured()
    if plan.contenders or LIMITS in plan.rows:
        ports = Ports.free_block()
        servers = {name for name in SERVERS if name in {"postgres", "redis", "rabbit", *plan.brokers}}
        with instance(_RUN_ROOT, _NAME, steps, ports=ports, servers=servers) as runtime:
            runtime.start_servers()
            if FULL in plan.names:
                past.require_room(runtime.root, plan.past_rows)
            runtime.ensure_databases([_DATABASE, _LEDGER, _JOBS, _ORDERS, _PAST])
            run_until_signal(_rounds(plan, runtime, ports, profiles, measured))
            if START_UP not in plan.rows:
                ignore_signals()
            measured.versions = runtime.versions()
    if START_UP in plan.rows:  # when nothing else runs
        try:
            run_until_signal(_start_up(plan, measured))
        except BenchError as error:
            measured.no_start_up = str(error)
        ignore_signals()
    return measured


async def _start_up(plan: Plan, measured: Measured) -> None:
    root = _RUN_ROOT / f"{_NAME}-start-up"
    for broker in plan.brokers:
        measured.start_up_s[broker] = round(await start_up.to_first_effect_s(broker, root), 1)


async def _rounds(plan: Plan, runtime: Runtime, ports: Ports, profiles: Path | None, measured: Measured) -> None:
    """Which of Celery's pools was chosen, what every contender did, and what the parts take by themselves."""
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
    telemetry = Telemetry(settings["rabbit"].model_copy(update={"otlp_dir": logs}), _NAME)
    runner = Runner(settings, {"TANDEM_INSTANCE_ROOT": str(runtime.root)}, logs, profiles)
    of_jobs = settings["rabbit"].model_copy(update={"postgres_dsn": runtime.dsn(_JOBS)})
    async with (
        AsyncExitStack() as stack,
        Effects(runtime.dsn(_DATABASE), urls["redis"]) as effects,
        Effects(runtime.dsn(_PAST), urls["redis"]) as full,
        Ledger(runtime.dsn(_LEDGER)) as ledger,
        People(runtime.dsn(_LEDGER)) as people,
        JobTables(of_jobs, telemetry) as tables,
        OrderTables(runtime.dsn(_ORDERS)) as order_tables,
    ):
        stack.callback(telemetry.shutdown)  # before its files are removed, with the directory that they are in
        await effects.create()
        await full.create()
        draining = Draining(runner, effects, full, plan.pool)
        with Progress(*_COLUMNS, console=Console(stderr=True)) as progress:
            bar = progress.add_task("starting", total=plan.work)
            if FULL in plan.names:
                progress.update(bar, description=f"an inbox of {plan.past_rows:,} rows")
                await full.give_past(short(FULL), plan.past_rows)
            bench = Bench(
                plan=plan,
                draining=draining,
                publishing=Publishing(runtime.dsn(_DATABASE), telemetry),
                money=Money(runner, ledger, runtime.dsn(_LEDGER)),
                answers=Answers(runner, ledger, people, runtime.dsn(_LEDGER)),
                jobs=JobRuns(runner, tables, plan.waiting_jobs),
                orders=Orders(draining, order_tables),
                say=lambda text: progress.update(bar, description=text),
                advance=lambda count: progress.advance(bar, count),
            )
            measured.rates = await bench.run()
            measured.took_s = {str(contender): round(s, 1) for contender, s in bench.took_s.items()}
            if LIMITS in plan.rows:
                measuring = Measuring(runtime, draining, bench.say)
                measured.limits = await measuring.run(plan.brokers, plan.events, plan.rounds)
    measured.pool = draining.pool
