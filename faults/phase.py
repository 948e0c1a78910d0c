"""Plays one fault on one broker: load, fault, quiet, check."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from experiment import checker, facts
from experiment.checker import Verdict
from experiment.effects import CONSUMER
from experiment.ledger import Entry
from experiment.side import Side
from faults.beside import Companies, Findings, Kind, processes_of
from faults.deliveries import DuplicateCount
from faults.fault import Fault
from faults.figures import gap_s, recovered_s, unserved, watched_until_s
from faults.proxy import Proxies
from faults.scene import PATIENCE_S, Scene

LEAD_S = 2.0
"""The fault comes so long after the load has begun."""
TAIL_S = 5.0
"""The load goes on for so long after the fault, at least."""


@dataclass(slots=True)
class PhaseResult:
    """What one fault did. The verdict holds what was found since the fault before, whichever event it hit."""

    fault: str
    verdict: Verdict
    duplicate_deliveries: int
    gap_s: float
    recovered_s: float | None
    operations: int
    errors: dict[str, int] = field(default_factory=dict)
    """By HTTP status, or by what became of the connection."""
    entries: Sequence[Entry] = ()
    """Of all that was asked: the load, and what was asked after it because a service was silent."""
    error_responses_allowed: bool = True
    beside: dict[str, Findings] = field(default_factory=dict)
    """Of what ran beside the orders, by the name of its kind."""

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, doubled or left behind, and everything serves again."""
        answered = self.error_responses_allowed or not self.error_responses
        return (
            self.verdict.complete
            and self.recovered_s is not None
            and answered
            and all(found.sound for found in self.beside.values())
        )

    @property
    def error_responses(self) -> dict[str, int]:
        """The errors that have an HTTP status."""
        return {reason: count for reason, count in self.errors.items() if reason.isdigit()}

    def figures(self) -> dict[str, Any]:
        """As in the summary; seconds are rounded to milliseconds."""
        counts = self.verdict.counts()
        return {
            "lost": counts["lost"],
            "duplicate_deliveries": self.duplicate_deliveries,
            "duplicate_effects": counts["duplicate_effects"],
            "reordered": counts["reordered"],
            "stuck": counts["stuck"],
            "gap_s": round(self.gap_s, 3),
            "recovered_s": None if self.recovered_s is None else round(self.recovered_s, 3),
            "indeterminate_recovered": counts["indeterminate_recovered"],
            "dead_lettered": counts["dead_lettered"],
            "stale": counts["stale"],
            "unexpected": counts["unexpected"],
            "acknowledged": counts["acknowledged"],
            "operations": self.operations,
            "errors": self.errors,
            **{name: found.counts() for name, found in self.beside.items()},
        }


async def play(fault: Fault, side: Side, proxies: Proxies, companies: Companies | None = None) -> PhaseResult:
    """Play a fault: load from before it until after it, then quiet until all is settled, then the check.

    `companies` run beside the orders, and are checked too.

    Raises `StalledError` when the fault itself cannot be played, `DeployError` when a process does not come back.
    """
    scene = Scene(side, proxies, tuple((companies or {}).values()))
    await side.databases.connect()  # an earlier fault may have ended the sessions, on the other side too
    position = await side.databases.last_effect_position()
    duplicates = DuplicateCount(lambda: _consumers(side))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(_restored, fault, scene)
        await fault.prepare(scene)
        await duplicates.look()
        duplicates.total = 0
        watching = asyncio.create_task(duplicates.watch())
        stack.callback(watching.cancel)
        entries, errors = await _load_with(fault, scene, companies or {})
    played = facts.PLAYED | processes_of(companies or {})
    for row in side.runtime.sets[side.broker].processes:
        if row.process in played:
            await scene.call(side.runtime.processes.wait_ready, row.name)
    await side.databases.connect()
    await side.settle()
    asked = [*entries, *await until_served(side, fault.name, entries)]
    await duplicates.look()
    verdict = await verify(side, asked)
    beside = {kind.name: found for kind, found in (await verify_beside(companies or {})).items()}
    began_s, ended_s = scene.began_s or 0.0, scene.ended_s or 0.0
    committed_s = side.committed_s()
    times = [effect.committed_s for effect in side.effects if effect.position > position]
    return PhaseResult(
        fault=fault.name,
        verdict=verdict,
        duplicate_deliveries=duplicates.total,
        gap_s=gap_s(times, began_s, watched_until_s(entries, committed_s, times)),
        recovered_s=recovered_s(asked, committed_s, ended_s),
        operations=len(entries),
        errors=errors,
        entries=asked,
        error_responses_allowed=not fault.unnoticed,
        beside=beside,
    )


async def verify(side: Side, entries: Sequence[Entry]) -> Verdict:
    """Check everything; returns what the check before had not found, with the counts of `entries`."""
    before = side.verdict
    whole = await side.verify()
    # It is stopped there if something was missing; where it runs, this changes nothing.
    await asyncio.to_thread(side.runtime.processes.start, side.process(CONSUMER))
    return checker.since(whole, before, entries, side.effects)


async def verify_beside(companies: Companies) -> dict[Kind, Findings]:
    """Check all that ran beside the orders, side by side: each waits for its own."""
    checks = [asyncio.create_task(company.verify()) for company in companies.values()]
    try:
        return dict(zip(companies, await asyncio.gather(*checks), strict=True))
    finally:
        for task in checks:
            task.cancel()
        await asyncio.gather(*checks, return_exceptions=True)


async def _load_with(fault: Fault, scene: Scene, companies: Companies) -> tuple[list[Entry], dict[str, int]]:
    side = scene.side
    enough = asyncio.Event()
    began = asyncio.get_running_loop().time()

    async def strike() -> None:
        await asyncio.sleep(LEAD_S)
        side.progress.detail("the fault")
        began_s = side.clock.now_s()
        await fault.act(scene)
        scene.began_s = scene.began_s or began_s
        scene.ended_s = scene.ended_s or side.clock.now_s()
        passed_s = asyncio.get_running_loop().time() - began
        await asyncio.sleep(max(TAIL_S, fault.load_s - passed_s))
        enough.set()

    operations = side.schedule(fault.name, fault.load_s + PATIENCE_S)
    loading = asyncio.create_task(side.send(operations, fault.name, enough))
    others = [asyncio.create_task(company.load(enough)) for company in companies.values()]
    try:
        await strike()
        entries, report = await loading
        await asyncio.gather(*others)
    finally:
        for task in (loading, *others):
            task.cancel()
        await asyncio.gather(loading, *others, return_exceptions=True)
    return entries, report.errors


async def until_served(side: Side, phase: str, entries: Sequence[Entry]) -> list[Entry]:
    """Ask on, a second at a time and for a minute at most, where the last that a service was asked for failed.

    Returns the entries of that: none as a rule. A request may fail at the end of the load for want of CPU.
    """
    more: list[Entry] = []
    clock = asyncio.get_running_loop().time
    deadline = clock() + PATIENCE_S
    while unserved([*entries, *more]) and clock() < deadline:
        again = f"{phase}-more-{len(more)}"  # a name of its own: idempotency keys are made of it
        found, _ = await side.send(side.schedule(again, 1.0), again)
        more += found
    if more:
        await side.settle()
    return more


async def _restored(fault: Fault, scene: Scene) -> None:
    scene.side.progress.detail("afterwards")
    await fault.restore(scene)


def _consumers(side: Side) -> dict[str, str]:
    urls = side.runtime.addresses.process_urls(side.broker)
    rows = side.runtime.sets[side.broker].processes
    consumers = [row for row in rows if row.process in facts.PLAYED and row.process.endswith("-consumer")]
    return {row.name: urls[row.name] for row in consumers}
