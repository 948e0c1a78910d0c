"""The order of the stages: what is claimed when, what is answered and counted, and that claims are given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from structlog.testing import capture_logs

from shared.broker.base import Delivery, Settlement, Subscription
from shared.consuming.claims import Claim, ClaimState
from shared.consuming.pipeline import Pipeline
from shared.consuming.subscriber import Handler, Subscriber
from shared.dead_letter.headers import ERROR_TYPE
from shared.envelope import Envelope
from shared.errors import BusinessError, PermanentError, UnavailableError
from shared.event import Event
from shared.publishing.uow import UnitOfWork
from shared.telemetry import Spans
from shared.telemetry.tracing.recorder import Recorder
from tests.unit.stages import Counted, Happened, Inbox, Told, settings_with

ACK, RETRY = Settlement.ACK, Settlement.RETRY
FIRST = Claim(ClaimState.NEW, 1)


def delivered(*names: str, key: str = "k", event_type: str = "thing.happened") -> list[Delivery]:
    """A delivery for each id."""
    events = [
        Envelope(source="/tests", type=event_type, id=name, partitionkey=key, traceparent=None, data={})
        for name in names
    ]
    return [
        Delivery(
            event.encode(), {}, "thing", event.key, redelivered=False, position=f"thing#{event.id}", token=None
        )
        for event in events
    ]


class Stages:
    """A pipeline whose servers take note of what they are asked; its handler does what it is told for an id."""

    def __init__(self, *, outside_effects: bool = False, **overrides: Any) -> None:
        self.handled: list[str] = []
        self.failures: dict[str, BaseException] = {}
        self.passing: dict[str, BaseException] = {}
        self.letters: list[tuple[str, str]] = []
        self.told: list[str] = []
        self.prepared: list[list[str]] = []
        self.claims, self.counted, self.inbox = Told(), Counted(), Inbox([])
        self.spans = Spans(Recorder(TraceIdRatioBased(0.0)), "kafka")
        subscriber = Subscriber(
            "thing",
            "tester",
            (Handler(Happened, self._handle),),
            ignores=frozenset({"thing.ignored"}),
            transient=(LookupError,),
            outside_effects=outside_effects,
            prepare=self._prepare,
            put_aside=self._hear,
        )
        servers: Any = self
        telemetry: Any = SimpleNamespace(spans=self.spans, metrics=self.counted)
        self.pipeline = Pipeline(
            settings_with(**{"handler_attempts_max": 1, **overrides}),
            subscriber=subscriber,
            broker=servers,
            claims=self.claims,
            units=servers,
            telemetry=telemetry,
        )

    async def _handle(self, event: Event[Happened], _uow: UnitOfWork) -> None:
        self.handled.append(event.id)
        failure = self.failures.get(event.id) or self.passing.pop(event.id, None)
        if failure is not None:
            raise failure

    async def _prepare(self, events: Sequence[Event[Any]], _uow: UnitOfWork) -> None:
        self.prepared.append([event.id for event in events])

    async def _hear(self, event: Event[Happened], error: Exception, _uow: UnitOfWork) -> None:
        self.told.append(f"{event.id}: {error}")

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        connection: Any = self.inbox
        yield UnitOfWork(connection, "tests", self.spans)

    async def publish_dead_letter(
        self, _subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        self.letters.append((delivery.position, headers[ERROR_TYPE]))

    def first_time(self, *names: str) -> None:
        """Nobody took these up before."""
        self.claims.answers |= dict.fromkeys(names, FIRST)


async def test_a_batch_is_answered_and_counted_by_what_became_of_each_delivery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = count(1_000.0)
    monkeypatch.setattr("shared.consuming.pipeline.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    stages = Stages()
    stages.first_time("1", "2", "3")
    stages.failures["2"] = BusinessError("no")
    garbage = Delivery(b"{", {}, "thing", None, redelivered=False, position="thing#garbage", token=None)
    batch = [*delivered("1", "1", "2", "3"), *delivered("4", event_type="thing.ignored"), garbage]
    assert await stages.pipeline(batch) == [ACK] * 6
    assert stages.handled == ["1", "2", "3"]
    assert stages.letters == [("thing#garbage", "UndecodableError"), ("thing#2", "BusinessError")]
    claimed, processed = stages.counted.told
    assert claimed == ("claimed", "tester.thing", {ClaimState.NEW: 3})
    statuses = {"done": 2, "duplicate": 1, "dead_lettered": 2, "ignored": 1}
    assert processed == ("processed", "tester.thing", statuses, 2.0), "a second for each of its two parts"
    assert stages.claims.released == [("tester:2", True)]
    assert (stages.prepared, stages.told) == ([["1", "2", "3"]], ["2: no"])


async def test_what_the_subscriber_says_may_pass_is_delayed_and_no_dead_letter() -> None:
    stages = Stages()
    stages.first_time("1")
    stages.failures["1"] = LookupError("not yet")
    assert await stages.pipeline(delivered("1")) == [ACK]
    assert (stages.counted.told[1][2], stages.told) == ({"delayed": 1}, [])


async def test_a_batch_that_fails_is_told_of_and_run_again_one_by_one() -> None:
    stages = Stages()
    stages.first_time("1", "2")
    stages.passing["2"] = KeyError("once")
    with capture_logs() as logs:
        assert await stages.pipeline(delivered("1", "2")) == [ACK] * 2
    assert [(one["event"], one["queue"], one["count"]) for one in logs] == [
        ("pipeline.isolating", "tester.thing", 2)
    ]
    assert stages.prepared == [["1", "2"], ["1"], ["2"]]


async def test_a_server_that_is_lost_for_a_moment_costs_its_batch_a_wait() -> None:
    stages = Stages(outage_hold_s=60)
    stages.first_time("1")
    stages.passing["1"] = UnavailableError("planted")
    with capture_logs() as logs:
        assert await stages.pipeline(delivered("1")) == [ACK]
    assert [(one["event"], one["queue"]) for one in logs] == [("pipeline.waiting", "tester.thing")]
    assert stages.handled == ["1", "1"]


async def test_what_a_lost_server_sends_back_is_answered_so_and_no_more_held() -> None:
    stages = Stages()
    stages.first_time("1", "2")
    stages.failures["2"] = UnavailableError("planted")
    assert await stages.pipeline(delivered("1", "2")) == [RETRY] * 2
    assert stages.claims.released == [("tester:1", False), ("tester:2", False)]


async def test_what_is_prepared_is_claimed_and_has_no_effect_until_it_runs_or_is_abandoned() -> None:
    stages = Stages()
    stages.first_time("1", "2")
    taken = await stages.pipeline.prepare(delivered("1"))
    given_up = await stages.pipeline.prepare(delivered("2"))
    assert (stages.claims.asked, stages.handled) == (["1", "2"], [])
    await given_up.abandon()
    assert stages.claims.released == [("tester:2", False)]
    assert await taken.run() == [ACK]
    assert (stages.claims.asked, stages.handled) == (["1", "2"], ["1"]), "it is claimed once"


async def test_suspects_are_given_back_and_claimed_in_turn_and_behind_them_nothing_is_claimed() -> None:
    stages = Stages()
    stages.first_time("1", "9")
    pipeline = stages.pipeline
    taken = await pipeline.prepare(delivered("1", "2"))
    assert stages.claims.released == [("tester:1", False), ("tester:2", False)]
    behind: list[Any] = []

    async def prepare_beside(self: Told, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        if not behind:
            behind.append(None)
            behind.append(await pipeline.prepare(delivered("9")))
        return await Told.claim(self, subscriber, events)

    stages.claims.claim = prepare_beside.__get__(stages.claims)  # type: ignore[method-assign]
    assert await taken.run() == [ACK] * 2
    assert stages.claims.asked == ["1", "2", "1", "2"], "both at once, then one by one, and nothing behind them"
    assert stages.claims.marked == ["tester:1", "tester:2"]
    assert await behind[1].run() == [ACK]
    assert stages.claims.asked[4:] == ["9"], "when its turn has come"
    await pipeline.prepare(delivered("9"))
    assert stages.claims.asked[5:] == ["9"], "nothing is suspected any more"


@pytest.mark.parametrize("error", [KeyError("planted"), asyncio.CancelledError()])  # when claims are made
async def test_whatever_is_raised_claims_are_given_back_and_it_is_passed_on(error: BaseException) -> None:
    stages = Stages()
    stages.first_time("1", "2")
    stages.failures["2"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await stages.pipeline(delivered("1", "2"))
    assert stages.claims.released == [("tester:1", False), ("tester:2", False)]

    class Broken(Told):
        async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
            await super().claim(subscriber, events)
            raise error

    stages.claims = stages.pipeline._claiming._claims = Broken()
    with pytest.raises(type(error)):
        await stages.pipeline.prepare(delivered("1"))
    assert stages.claims.released == [("tester:1", False)], "it may have been claimed all the same"


async def test_a_letter_that_was_given_back_gets_its_receipt() -> None:
    stages = Stages()
    stages.first_time("1")
    receipts: list[str] = []

    async def receive(_subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]) -> None:
        receipts.append(headers["tandem-kind"])
        assert delivery.body == b""

    stages.publish_dead_letter = receive  # type: ignore[method-assign]
    [delivery] = delivered("1")
    delivery.headers = {"tandem-letter-id": "0197a2f0-0000-7000-8000-000000000001"}
    assert await stages.pipeline([delivery]) == [ACK]
    assert receipts == ["receipt"]


@pytest.mark.parametrize(("channel", "reached"), [("thing", True), ("other", False)])
async def test_a_fail_point_is_that_of_its_channel(channel: str, reached: bool) -> None:
    stages = Stages(failpoints=f"pipeline.before_effect:{channel}=raise")
    stages.first_time("1")
    await stages.pipeline(delivered("1"))
    assert [kind for _, kind in stages.letters] == ([PermanentError.__name__] if reached else [])


async def test_killed_behind_its_commit_a_batch_is_not_marked_as_done() -> None:
    stages = Stages(failpoints="pipeline.after_commit=raise")
    stages.first_time("1")
    with pytest.raises(PermanentError, match="after_commit"):
        await stages.pipeline(delivered("1"))
    assert (stages.claims.marked, stages.claims.released) == ([], [("tester:1", False)])


async def test_no_more_is_taken_than_the_rate_allows() -> None:
    stages = Stages(rate_limit_per_s="tester.thing=3")
    await stages.pipeline.prepare(delivered("1", "2"))
    limiter = stages.pipeline._intake._limiter
    assert limiter is not None
    assert (limiter.has_capacity(1), limiter.has_capacity(2)) == (True, False)
    assert stages.pipeline.subscription.batch_max == 3
