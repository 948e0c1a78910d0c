"""What is told directly, beside the broker: of which events, when they are tried, and what the copy finds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from sqlalchemy import Column, Integer, MetaData, Table, insert

from shared.broker.base import Delivery, Settlement
from shared.consuming.claims import Claim, ClaimState
from shared.consuming.direct import DirectWay, hears_directly
from shared.consuming.subscriber import Handler, Subscriber
from shared.errors import BusinessError, UnavailableError
from shared.event import Event, EventData
from shared.jobs import StepReady
from shared.publishing.direct import BYTES_MAX, CHANNEL, Directly, read_told
from shared.publishing.doorbell import Doorbell
from shared.publishing.leading import Leading
from shared.publishing.outbox import NOTIFY_CHANNEL, Asks, publishing, publishing_beside
from shared.publishing.uow import UnitOfWork
from shared.telemetry import Spans
from shared.telemetry.tracing.recorder import Recorder
from tests.unit.clocks import Clock
from tests.unit.stages import Happened, Told, settings_with
from tests.unit.test_pipeline import Stages, delivered
from tests.unit.test_shared_unit_of_work import Connection, event

ACK = Settlement.ACK
BUSY, DONE, FIRST, SECOND = (
    Claim(ClaimState.BUSY),
    Claim(ClaimState.DONE),
    Claim(ClaimState.NEW, 1),
    Claim(ClaimState.NEW, 2),
)


class Listening(Stages):
    """Stages of a subscriber that hears directly."""

    def __init__(self, **overrides: Any) -> None:
        super().__init__(**overrides)
        self.during: Callable[[], Awaitable[object]] | None = None
        """What a handler waits for."""
        self.begun = asyncio.Event()

    @property
    def way(self) -> DirectWay:
        assert self.pipeline.direct is not None
        return self.pipeline.direct

    def hear(self, name: str) -> None:
        self.way.hear(delivered(name)[0].body)

    async def heard(self, *names: str) -> None:
        """Hear of these, one after the other, and wait for what comes of it."""
        for name in names:
            self.hear(name)
            await self.way.settled()

    async def _handle(self, received: Event[Happened], uow: UnitOfWork) -> None:
        await super()._handle(received, uow)
        self.begun.set()
        if self.during is not None:
            await self.during()


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Listening:
    monkeypatch.setattr(Happened, "told_directly", True)
    return Listening()


# -- trying


async def test_an_idle_consumer_tries_what_it_hears_of_and_the_copy_is_done_without_a_claim(
    stages: Listening,
) -> None:
    stages.first_time("1")
    await stages.heard("1")
    assert (stages.handled, stages.claims.marked) == (["1"], ["tester:1"])
    assert await stages.pipeline(delivered("1")) == [ACK]
    assert (stages.handled, stages.claims.asked, stages.claims.released) == (["1"], ["1"], [])
    assert [told[2] for told in stages.counted.told if told[0] == "processed"] == [{"done": 1}], (
        "it is counted once"
    )
    assert await stages.pipeline(delivered("1")) == [ACK], "a copy of the copy is claimed as ever"
    assert stages.claims.asked == ["1", "1"]


async def test_a_copy_that_comes_while_it_is_tried_waits_for_the_end(stages: Listening) -> None:
    may_end = asyncio.Event()
    stages.during = may_end.wait
    stages.first_time("1", "2")
    stages.hear("1")
    batch = asyncio.create_task(_settled(stages, delivered("2", "1")))
    await stages.begun.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert (stages.handled, batch.done()) == (["1"], False)
    may_end.set()
    assert await batch == [ACK, ACK]
    assert stages.handled == ["1", "2"]


async def test_nothing_is_tried_while_a_batch_is_in_hand(stages: Listening) -> None:
    stages.first_time("1", "2", "3", "4")

    async def hear_of_another() -> None:
        stages.during = None
        await stages.heard("2")

    stages.during = hear_of_another
    await stages.pipeline(delivered("1"))
    taken = await stages.pipeline.prepare(delivered("3"))
    await stages.heard("2")
    await taken.abandon()
    assert stages.handled == ["1"]
    await stages.heard("2")
    assert stages.handled == ["1", "2"], "an abandoned batch is in nobody's hand"


async def test_a_batch_that_cannot_be_taken_up_is_in_nobody_s_hand(stages: Listening) -> None:
    class Broken(Told):
        async def claim(self, *_: Any) -> list[Claim]:
            raise KeyError("planted")

    claims, stages.pipeline._claiming._claims = stages.pipeline._claiming._claims, Broken()
    with pytest.raises(KeyError):
        await stages.pipeline(delivered("1"))
    stages.pipeline._claiming._claims = claims
    stages.first_time("1")
    await stages.heard("1")
    assert stages.handled == ["1"]


async def test_one_is_tried_at_a_time(stages: Listening) -> None:
    stages.first_time("1", "2")
    stages.hear("1")
    stages.hear("2")
    await stages.way.settled()
    assert stages.handled == ["1"]


@pytest.mark.parametrize("error", [BusinessError("no"), UnavailableError("planted"), KeyError("k")])
async def test_what_comes_of_a_try_that_fails_is_nothing_and_the_copy_is_the_first_attempt(
    stages: Listening, error: Exception
) -> None:
    stages.first_time("1")
    stages.passing["1"] = error
    await stages.heard("1")
    assert (stages.letters, stages.told, stages.claims.marked) == ([], [], [])
    assert stages.claims.released == [("tester:1", False)], "the attempt is not counted"
    assert await stages.pipeline(delivered("1")) == [ACK]
    await stages.pipeline._claiming.marked()
    assert (stages.handled, stages.claims.marked, stages.letters) == (["1", "1"], ["tester:1"], [])


@pytest.mark.parametrize(("claim", "released"), [(BUSY, []), (DONE, []), (SECOND, [("tester:1", False)])])
async def test_what_is_not_new_is_left_to_the_broker(
    stages: Listening, claim: Claim, released: list[tuple[str, bool]]
) -> None:
    stages.claims.answers["1"] = claim
    await stages.heard("1")
    assert (stages.handled, stages.claims.released) == ([], released)
    assert stages.way.is_alone is (claim is not BUSY), "another process was quicker: it waits for its rows no more"


async def test_without_redis_nothing_is_tried(stages: Listening) -> None:
    class Lost(Told):
        async def claim(self, *_: Any) -> list[Claim]:
            raise UnavailableError("planted")

    stages.pipeline._claiming._claims = Lost()
    await stages.heard("1", "2")
    assert stages.handled == []
    assert stages.counted.told == [("without claims", "tester.thing", 1)], "it is left alone for a second"


async def test_what_cannot_be_read_or_is_not_told_directly_is_forgotten(
    stages: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.first_time("1", "2")
    stages.way.hear(b"{")
    await stages.way.settled()
    stages.way.hear(delivered("1", event_type="thing.ignored")[0].body)
    await stages.way.settled()
    monkeypatch.setattr(Happened, "told_directly", False)
    await stages.heard("2")
    assert (stages.handled, stages.letters, stages.claims.asked) == ([], [], [])


async def test_a_try_that_is_cut_off_gives_its_claim_back(stages: Listening) -> None:
    stages.during = asyncio.Event().wait
    stages.first_time("1")
    stages.hear("1")
    await stages.begun.wait()
    await stages.way.close()
    assert (stages.claims.released, stages.claims.marked) == ([("tester:1", False)], [])


def test_a_subscriber_hears_of_events_that_are_told_and_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(_event: Any, _uow: UnitOfWork) -> None: ...

    def hears(*, limits: Mapping[str, float] | None = None, **of_subscriber: Any) -> bool:
        subscriber = Subscriber("thing", "tester", (Handler(Happened, handle),), **of_subscriber)
        return hears_directly(subscriber, settings_with(rate_limit_per_s=limits or {}))

    assert not hears()
    monkeypatch.setattr(Happened, "told_directly", True)
    assert hears()
    assert hears(limits={"other.thing": 1})
    assert not hears(limits={"tester.thing": 1})
    assert not hears(outside_effects=True)
    assert not hears(answers=True)


async def _settled(stages: Listening, deliveries: list[Delivery]) -> list[Settlement]:
    return list(await stages.pipeline(deliveries))


# -- telling


class Ready(EventData):
    channel = "thing"
    event_type = "thing.ready"
    told_directly = True

    text: str = ""


class Telling:
    """Units of work of one process, and what they send."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._directly = Directly(self.clock)
        self._spans = Spans(Recorder(TraceIdRatioBased(0.0)), "kafka")
        self.leading: Leading | None = None

    def unit(self) -> UnitOfWork:
        self.connection = Connection()
        connection: Any = self.connection
        return UnitOfWork(connection, "tests", self._spans, leading=self.leading, directly=self._directly)

    async def notified(self, uow: UnitOfWork) -> dict[str, int]:
        """By channel, how often the last flush notifies."""
        await uow.flush(last=True)
        sent = " ".join(str(statement) for statement, _ in self.connection.sent)
        return {channel: sent.count(f"pg_notify('{channel}'") for channel in (CHANNEL, NOTIFY_CHANNEL)}


@pytest.fixture
def telling() -> Telling:
    return Telling()


TOLD, UNTOLD = {CHANNEL: 1, NOTIFY_CHANNEL: 1}, {CHANNEL: 0, NOTIFY_CHANNEL: 1}


async def test_a_lone_event_is_told_at_most_once_in_ten_milliseconds(telling: Telling) -> None:
    told = []
    for wait_s in (0.0, 0.005, 0.0051, 0.02):
        telling.clock.now += wait_s
        uow = telling.unit()
        uow.publish(Ready(), subject="s")
        told.append(await telling.notified(uow))
    assert told == [TOLD, UNTOLD, TOLD, TOLD]


async def test_a_process_whose_relay_leads_notifies_the_consumers_alone(telling: Telling) -> None:
    telling.leading = Leading(1)
    with telling.leading.of(0, Doorbell()):
        uow = telling.unit()
        uow.publish(Ready(), subject="s")
        assert await telling.notified(uow) == {CHANNEL: 1, NOTIFY_CHANNEL: 0}


def test_what_says_places_notifies_the_consumers_too() -> None:
    plain = insert(Table("thing", MetaData(), Column("n", Integer)))
    statements = [
        publishing(Asks.PLACES, one=True, directly=True),
        publishing_beside(plain, Asks.PLACES, one=True, directly=True),
    ]
    for statement in statements:
        assert str(statement).count(f"pg_notify('{CHANNEL}'") == 1


async def test_an_event_is_not_told_that_is_not_alone_or_long_or_of_another_kind(telling: Telling) -> None:
    two = telling.unit()
    two.publish(Ready(), subject="s")
    two.publish(Ready(), subject="s")
    assert await telling.notified(two) == UNTOLD
    flushed = telling.unit()
    flushed.publish(Happened(), subject="s")
    await flushed.flush()
    flushed.publish(Ready(), subject="s")
    assert await telling.notified(flushed) == {CHANNEL: 0, NOTIFY_CHANNEL: 2}
    long = telling.unit()
    long.publish(Ready(text="x" * BYTES_MAX), subject="s")
    assert await telling.notified(long) == UNTOLD
    other = telling.unit()
    other.publish(Happened(), subject="s")
    assert await telling.notified(other) == UNTOLD


async def test_what_a_handler_publishes_is_not_told_since_its_consumer_is_at_work(telling: Telling) -> None:
    uow = telling.unit()
    uow.begin_event(event("k"))
    uow.publish(Ready(), subject="s")
    assert await telling.notified(uow) == UNTOLD


def test_what_is_heard_is_the_channel_and_the_bytes() -> None:
    body = '{"data": "ä b"}'
    assert read_told(f"thing {body}") == ("thing", body.encode())


def test_steps_are_told_directly() -> None:
    assert StepReady.told_directly
