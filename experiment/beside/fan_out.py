"""More subscribers of the orders: every event has one effect with each, in order; the last one is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from experiment import broker_state
from experiment.beside.checks import spread_of
from experiment.beside.company import DATABASE, Told, process
from experiment.beside.subscribing import CHANNEL, names, places
from experiment.clock import until
from experiment.effects import CONSUMER
from experiment.figures import Latencies
from experiment.ledger import Entry, Outcome
from experiment.side import Side
from experiment.workload import FanOut

_POLL_S = 0.2
_COUNT = "select count(*) from beside_effect where key = any($1::text[])"
_EFFECTS = """
select subscriber, key, value, extract(epoch from pg_xact_commit_timestamp(xmin))::float8
  from beside_effect where key = any($1::text[]) order by position
"""


@dataclass(slots=True)
class MoreSubscribers:
    """One phase's subscribers besides those that are always there."""

    side: Side
    asked: FanOut

    async def load(self, duration_s: float) -> None:
        """The orders are the load."""
        del duration_s

    async def told(self, entries: Sequence[Entry]) -> Told:
        """Every acknowledged event of an order has one effect with each; its latency is that of the last one, of
        the subscriber's who is always there, too."""
        events = {
            (str(entry.key), entry.sequence or 0): entry
            for entry in entries
            if entry.outcome is Outcome.ACKNOWLEDGED and entry.event_type.startswith(f"{CHANNEL}.")
        }
        databases, keys = self.side.databases, sorted({key for key, _ in events})
        due = len(events) * self.asked.subscribers

        async def arrived() -> bool:
            [[count]] = await databases.rows(DATABASE, _COUNT, keys)
            return int(count) >= due

        await until(arrived, self.side.workload.settle_timeout_s, _POLL_S)
        rows = await databases.rows(DATABASE, _EFFECTS, keys)
        spread = spread_of(events, names(self.asked.subscribers), rows)
        latencies = Latencies()
        for event, entry in events.items():
            last_s = spread.last_s.get(event)
            if last_s is None or entry.durable_s is None:
                latencies.record_endless(self.side.workload.settle_timeout_s)
            else:
                latencies.record(max(last_s, entry.durable_s) - entry.intended_s)
        return Told(latencies, {"events": len(events), "effects": len(rows)}, spread.wrong)


@asynccontextmanager
async def more_subscribers(side: Side, asked: FanOut) -> AsyncIterator[MoreSubscribers]:
    """So many more subscribers, in one process, as long as this context; afterwards the broker keeps nothing for
    them."""
    settings, subscriptions = side.settings(CONSUMER), places(asked.subscribers)
    await broker_state.begin_at_the_end(settings, subscriptions)
    try:
        async with process(side, "consumer", "fan-out", str(asked.subscribers)):
            yield MoreSubscribers(side, asked)
    finally:
        await broker_state.remove_places(settings, subscriptions)
