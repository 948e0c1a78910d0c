"""Plays one fault on one side: load, fault, quiet, check."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

from compare import checker
from compare.checker import Effect, Verdict
from compare.ledger import Entry
from compare.side import Side
from faults.catalogue import Fault
from faults.deliveries import DuplicateCount
from faults.figures import gap_s, recovered_s
from faults.proxy import Proxies
from faults.scene import Scene

LEAD_S = 2.0
"""The fault comes so long after the load has begun."""
_CONSUMER = "notification-consumer"


@dataclass(slots=True)
class PhaseResult:
    """What one fault did. The verdict is of this phase alone: what it caused, whichever event it hit."""

    fault: str
    verdict: Verdict
    duplicate_deliveries: int
    gap_s: float
    recovered_s: float | None
    operations: int
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return self.verdict.sound

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
            "unexpected": counts["unexpected"],
            "acknowledged": counts["acknowledged"],
            "operations": self.operations,
            "errors": self.errors,
        }


async def play(fault: Fault, side: Side, proxies: Proxies) -> PhaseResult:
    """Load from before the fault until after it, then quiet until all is settled, then the check.

    Raises `StalledError` when the fault itself cannot be played, `DeployError` when a process does not come back.
    """
    scene = Scene(side, proxies)
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
        entries, errors = await _load_with(fault, scene)
    await side.databases.connect()
    await side.settle()
    await duplicates.look()
    verdict = await side.verify()
    # It is stopped there if something was missing; where it runs, this changes nothing.
    await scene.call(side.runtime.start_process, side.process(_CONSUMER))
    began_s, ended_s = scene.began_s or 0.0, scene.ended_s or 0.0
    committed_s = side.committed_s()
    times = [effect.committed_s for effect in side.effects if effect.position > position]
    until_s = max((entry.intended_s for entry in entries), default=began_s)
    return PhaseResult(
        fault=fault.name,
        verdict=of_phase(verdict, fault.name, position, entries, side.effects),
        duplicate_deliveries=duplicates.total,
        gap_s=gap_s(times, began_s, until_s),
        recovered_s=recovered_s(entries, committed_s, ended_s),
        operations=len(entries),
        errors=errors,
    )


async def _load_with(fault: Fault, scene: Scene) -> tuple[list[Entry], dict[str, int]]:
    side = scene.side

    async def strike() -> None:
        await asyncio.sleep(LEAD_S)
        side.journey.detail("the fault")
        began_s = side.clock.now_s()
        await fault.act(scene)
        scene.began_s = scene.began_s or began_s
        scene.ended_s = scene.ended_s or side.clock.now_s()

    loading = asyncio.create_task(side.send(side.schedule(fault.name, fault.load_s), fault.name))
    try:
        await strike()
        entries, report = await loading
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
    return entries, report.errors


async def _restored(fault: Fault, scene: Scene) -> None:
    scene.side.journey.detail("afterwards")
    await fault.restore(scene)


def _consumers(side: Side) -> dict[str, str]:
    urls = side.runtime.process_urls(side.broker)
    rows = side.runtime.sets[side.broker].processes
    return {row.name: urls[row.name] for row in rows if row.process.endswith("-consumer")}


def of_phase(whole: Verdict, phase: str, position: int, entries: list[Entry], effects: list[Effect]) -> Verdict:
    """The part of a verdict over everything that belongs to one phase: its events, and effects recorded in it."""

    def own(found: list[Entry]) -> list[Entry]:
        return [entry for entry in found if entry.phase == phase]

    def recent(found: list[Effect]) -> list[Effect]:
        return [effect for effect in found if effect.position > position]

    committed = len(entries) - len(checker.missing(entries, effects))
    return Verdict(
        acknowledged=sum(entry.acknowledged_s is not None for entry in entries),
        effects=committed,
        lost=own(whole.lost),
        stuck=own(whole.stuck),
        dead_lettered=own(whole.dead_lettered),
        duplicate_effects=recent(whole.duplicate_effects),
        reordered=recent(whole.reordered),
        indeterminate_recovered=own(whole.indeterminate_recovered),
        unexpected=recent(whole.unexpected),
    )
