"""Asks and waits for replies beside the orders, at a fixed rate; every answer is checked, and its effect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from experiment.beside.answering import SUBSCRIBER, NumberAsked, expected
from experiment.beside.checks import wrong_requests
from experiment.beside.company import DATABASE, Told, ask_on_time, process
from experiment.effects import CONSUMER
from experiment.figures import Latencies
from experiment.ledger import Entry
from experiment.side import Side
from experiment.workload import RequestReply
from shared.broker import create_broker
from shared.errors import PermanentError, TransientError
from shared.reply import NoAnswerError, Requests
from shared.telemetry import Telemetry

_NAME = "experiment"
_EFFECTS = "select key, count(*) from beside_effect where subscriber = $1 group by key"


@dataclass(slots=True)
class AskedRequests:
    """One phase's requests, by key: of those that were answered whether rightly; those without an answer in time;
    those that the broker did not confirm, or that were refused."""

    side: Side
    asked: RequestReply
    phase: str
    requests: Requests
    answered: dict[str, bool] = field(default_factory=dict)
    timed_out: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    latencies: Latencies = field(default_factory=Latencies)

    async def load(self, duration_s: float) -> None:
        """Ask on time; an answer that does not come counts with its time-out."""
        await ask_on_time(self._ask, self.asked.requests_per_s, duration_s, self.side.clock)

    async def _ask(self, number: int, due_s: float) -> None:
        key = f"{self.phase}-{number}"
        request = NumberAsked(key=key, number=number)
        try:
            answer = await self.requests.ask(NumberAsked.channel, request, self.asked.timeout_s)
        except NoAnswerError:
            self.timed_out.add(key)
        except (TransientError, PermanentError):
            self.refused.add(key)
        else:
            self.latencies.record(self.side.clock.now_s() - due_s)
            self.answered[key] = answer == {"number": expected(number)}
            return
        self.latencies.record_endless(self.asked.timeout_s)

    async def told(self, entries: Sequence[Entry]) -> Told:
        """Every answer is the expected one, and its effect is there, once; nothing has two."""
        del entries
        rows = await self.side.databases.rows(DATABASE, _EFFECTS, SUBSCRIBER)
        effects = {str(key): int(count) for key, count in rows}
        counts = {
            "answered": len(self.answered),
            "timed_out": len(self.timed_out),
            "refused": len(self.refused),
            "done_unanswered": len(effects.keys() - self.answered.keys()),
        }
        wrong = wrong_requests(self.answered, self.timed_out | self.refused, effects)
        return Told(self.latencies, counts, wrong)


@asynccontextmanager
async def asked_requests(side: Side, asked: RequestReply, phase: str) -> AsyncIterator[AskedRequests]:
    """Requests of this process, answered by one that runs as long as this context."""
    settings = side.settings(CONSUMER)
    telemetry = Telemetry(settings, _NAME, _NAME)
    try:
        async with process(side, "consumer", "requests"), create_broker(settings, _NAME) as broker:
            requests = Requests(broker, _NAME, telemetry.spans)
            await requests.prepare(NumberAsked.channel)
            yield AskedRequests(side, asked, phase, requests)
    finally:
        telemetry.shutdown()
