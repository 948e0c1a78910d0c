"""Plants each kind of violation on the wire of one side, and tells what the check makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from compare.measured import MeasuredSide
from experiment.clock import until
from experiment.stamping import WIRE, Planted, planted
from experiment.workload import Backlog

_BACKLOG = Backlog(events=100, closed_share=0.5)
"""All of it is one batch of the relay, and some orders have two events."""
_POLL_S = 0.1
_PATIENCE_S = 1.0
"""For what was lost on purpose, when everything else is there."""


async def run_wire(measured: MeasuredSide) -> dict[str, int]:
    """Relay a small backlog with one fault of each kind, and return what was found, by its name and without zeros.

    To be run last: the consumer is stopped by the search for what was lost. Verdict and ledger stay as they were.
    """
    side = measured.side
    verdict, passage, asked, workload = side.verdict, measured.passage, len(side.entries), side.workload
    try:
        with planted(measured.stamps.directory, Planted(wire=tuple(WIRE))):
            expected = await side.databases.effect_count(0) + _BACKLOG.events  # one less, and one more
            entries = await side.write_backlog(_BACKLOG.events, "planted", _BACKLOG)

            async def there() -> bool:
                return await side.databases.effect_count(0) >= expected

            await until(there, workload.settle_timeout_s, _POLL_S)
        side.workload = workload.model_copy(update={"settle_timeout_s": _PATIENCE_S})
        found = await side.verify()
        # The lost one is never received, and the second of two ids was never sent: neither has all its stamps.
        await measured.read_stamps(entries, foreign=1)
        return _news({**verdict.counts(), **asdict(passage)}, {**found.counts(), **asdict(measured.passage)})
    finally:
        side.verdict, measured.passage, side.workload = verdict, passage, workload
        del side.entries[asked:]


def _news(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """How much more there is, but for what is no finding."""
    no_findings = {"acknowledged", "effects", "stamped", "unstamped"}
    return {
        name: count - before[name]
        for name, count in after.items()
        if count != before[name] and name not in no_findings
    }
