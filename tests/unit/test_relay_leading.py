"""The relay while it leads: how it comes to lead, what it looks for and when, what it leaves when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.broker.base import Message, PublishFailure
from shared.errors import UnavailableError
from shared.publishing import Leading
from shared.publishing.relay import Relay
from shared.settings import Settings
from tests.unit.stages import settings_with

SHARD = 2
POLL_S = 0.001
NEVER_S = 3_600.0


class OverError(Exception):
    """The test is over."""


def rows(*positions: int) -> list[dict[str, Any]]:
    """Of the outbox, each under a key of its own."""
    return [
        {
            "position": position,
            "bytes": 10,
            "channel": "thing",
            "type": "thing.happened",
            "key": str(position),
            "event_id": str(position),
            "traceparent": None,
            "body": b"",
        }
        for position in positions
    ]


class Session:
    """PostgreSQL that answers each look at the outbox with the next of `looks`, and then with `OverError`."""

    def __init__(self, *looks: list[dict[str, Any]]) -> None:
        self.looks = list(looks)
        self.looked: list[tuple[list[int], list[tuple[int, int]]]] = []
        """What each look deleted, and which places it left out."""
        self.looking = asyncio.Event()
        self.deleted: list[int] = []
        self.deletes = asyncio.Event()
        """What is deleted between looks is so when this is set."""
        self.deletes.set()
        self.lost_for_good = False
        self.closed = False
        self.locks = iter([False, True])
        self.asked_to_lead: list[tuple[object, ...]] = []
        self.listening: tuple[str, Callable[..., None]] | None = None

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        self.listening = channel, callback

    async def fetch(self, _query: str, *arguments: Any) -> list[dict[str, Any]]:
        self.looking.set()
        _shards, shard, *_, gone, known = arguments
        assert shard == SHARD
        self.looked.append((list(gone), [(one.lower, one.upper) for one in known]))
        if not self.looks:
            raise OverError
        return self.looks.pop(0) or [{"position": None, "bytes": 0}]

    async def execute(self, _query: str, gone: Sequence[int]) -> None:
        self.deleted += gone
        await self.deletes.wait()
        if self.lost_for_good:
            raise OSError("the session is lost")

    def is_closed(self) -> bool:
        return self.closed

    async def fetchval(self, query: str, *key: object) -> bool:
        assert "pg_try_advisory_lock" in query
        self.asked_to_lead.append(key)
        return next(self.locks)


class Leads:
    """A relay that leads on a session; publishing takes `took_s` by its clock, and confirms all but `refused`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, took_s: float = 0.0, **overrides: Any) -> None:
        self.now, self.took_s = 1_000.0, took_s
        self.rested: list[float] = []
        self.published: list[list[str]] = []
        self.told: list[str] = []
        """Of which events telemetry was told."""
        self.refused: set[str] = set()
        self.broken: Exception | None = None
        """What publishing raises in the end, once."""
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.stuck: dict[str, asyncio.Event] = {}
        """The keys of what is confirmed, or refused, when its event is set."""
        clock = SimpleNamespace(monotonic=lambda: self.now, time_ns=lambda: 0)
        for module in ("relay", "sending", "standing_by"):
            monkeypatch.setattr(f"shared.publishing.{module}.time", clock)
        monkeypatch.setattr(
            "shared.publishing.relay.asyncio", SimpleNamespace(sleep=self._rest, gather=asyncio.gather)
        )
        both: Any = self
        self.settings = settings_with(**{"relay_poll_interval_s": POLL_S, **overrides})
        self.leading = Leading(SHARD + 1)
        self.relay = Relay(self.settings, both, both, SHARD, clock=lambda: self.now, leading=self.leading)
        self.doorbell = self.relay._doorbell
        self._wait = self.doorbell.wait
        monkeypatch.setattr(self.doorbell, "wait", self._wait_by_clock)

    async def _wait_by_clock(self, seconds: float) -> bool:
        heard = await self._wait(seconds)
        if not heard:
            self.now += seconds
        return heard

    async def _rest(self, seconds: float) -> None:
        self.rested.append(seconds)

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        self.now += self.took_s
        self.published.append([message.key for message in messages])
        await self.go_on.wait()
        for message in messages:
            if message.key in self.stuck:
                await self.stuck[message.key].wait()
        if self.broken is not None:
            broken, self.broken = self.broken, None
            raise broken
        error = UnavailableError("planted")
        return [PublishFailure(message, error) for message in messages if message.key in self.refused]

    def sent(self, _channel: str, events: Sequence[tuple[str, ...]], *_told: object) -> None:
        self.told += [event_id for event_id, *_ in events]

    async def until_it_stands_by(self) -> int:
        """The ticket that is to be had then."""
        async with asyncio.timeout(10):
            while (ticket := self.doorbell.ticket()) is None:  # noqa: ASYNC110 - nothing else tells it
                await asyncio.sleep(0)
        return ticket

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)

    async def lead(self, session: Session) -> None:
        connection: Any = session
        with pytest.raises(OverError):
            await self.relay._lead(connection)


@pytest.mark.parametrize(
    ("found", "took_s", "rested"),
    [
        (3, 0.01, []),
        (4, 0.01, [0.01]),
        (4, 5.0, [0.025]),
        (5, 0.01, []),
        (10, 0.01, []),
    ],
)
async def test_a_relay_rests_as_long_as_it_worked_while_a_few_come_at_a_time(
    monkeypatch: pytest.MonkeyPatch, found: int, took_s: float, rested: list[float]
) -> None:
    leads = Leads(monkeypatch, took_s, relay_batch_max=10)
    looks = [rows(*range(1, found + 1))]
    await leads.lead(Session(*looks, *([[]] if found == 10 else [])))
    assert leads.rested == pytest.approx(rested)


async def test_what_is_confirmed_goes_with_the_next_look_and_what_is_in_flight_is_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session(rows(1, 2), rows(3), [])
    await Leads(monkeypatch, relay_batch_max=2).lead(session)
    assert session.looked == [
        ([], []),
        ([], [(1, 3)]),  # ahead, while a full batch is published
        ([1, 2, 3], [(1, 4)]),
        ([], []),
    ]
    assert session.deleted == [], "nothing is left to be deleted"


@pytest.mark.parametrize("lost_for_good", [False, True])
async def test_who_leads_no_more_deletes_what_is_confirmed_if_it_still_can(
    monkeypatch: pytest.MonkeyPatch, lost_for_good: bool
) -> None:
    session = Session(rows(1), rows(2))
    session.lost_for_good = lost_for_good
    leads = Leads(monkeypatch)
    await leads.lead(session)
    assert session.looked == [([], []), ([1], [(1, 2)]), ([2], [(2, 3)])]
    assert session.deleted == [2]
    assert leads.told == ["1", "2"]


async def test_a_notification_wakes_a_relay_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session([], [])
    leading = asyncio.create_task(leads.lead(session))
    for _ in range(2):
        await asyncio.wait_for(session.looking.wait(), 10)
        session.looking.clear()
        assert session.listening is not None
        channel, wake = session.listening
        assert channel == "tandem_outbox"
        wake("connection", 1, channel, "")
    await asyncio.wait_for(leading, 10)
    assert len(session.looked) == 3


@pytest.mark.parametrize(("held", "in_trouble"), [({}, False), ({"k": 2_000.0}, True)])
async def test_a_relay_that_finds_nothing_is_in_trouble_only_while_it_holds_something_back(
    monkeypatch: pytest.MonkeyPatch, held: dict[str, float], in_trouble: bool
) -> None:
    leads = Leads(monkeypatch)
    leads.relay._sending.waiting_since, leads.relay._held = 0.0, held
    await leads.lead(Session([]))
    assert (leads.relay.trouble is not None) == in_trouble


async def test_it_leads_once_the_lock_is_free_and_says_so_and_why_it_leads_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leads, session = Leads(monkeypatch), Session()
    opened: list[tuple[str, dict[str, str]]] = []
    lost = iter([OSError("gone"), OSError()])

    @asynccontextmanager
    async def opening(settings: Settings, name: str, **options: str) -> AsyncIterator[Session]:
        assert settings is leads.settings
        opened.append((name, options))
        session.locks = iter([False, True])
        yield session

    async def lead(connection: object) -> None:
        assert connection is session
        assert list(leads.leading._doorbells) == [SHARD]
        leads.leading.ring()
        assert leads.doorbell.is_rung, "who commits in this process rings for it"
        leads.relay._sending.waiting_since = 0.0
        error = next(lost, None)
        raise OverError if error is None else error

    monkeypatch.setattr("shared.publishing.relay.session", opening)
    monkeypatch.setattr(leads.relay, "_lead", lead)
    with capture_logs() as logs, suppress(OverError):
        await leads.relay.run()
    assert opened == [("relay-2", {"enable_seqscan": "off"})] * 3
    assert session.asked_to_lead == [(0x7A4D, SHARD)] * 6
    assert leads.rested == [POLL_S] * 5, "for the lock each time, and after each loss"
    assert [(one["event"], one["shard"], one.get("error")) for one in logs] == [
        ("relay.leads", 2, None),
        ("relay.database_lost", 2, "gone"),
        ("relay.leads", 2, None),
        ("relay.database_lost", 2, "OSError"),
        ("relay.leads", 2, None),
    ]


async def test_a_database_that_is_lost_is_no_trouble_of_the_relay_s(monkeypatch: pytest.MonkeyPatch) -> None:
    leads = Leads(monkeypatch)
    leads.relay._sending.waiting_since = 0.0
    assert leads.relay.trouble is not None

    async def lost(*_: object) -> None:
        raise OverError

    @asynccontextmanager
    async def unreachable(*_: object, **__: object) -> AsyncIterator[None]:
        raise OSError("no server")
        yield

    monkeypatch.setattr("shared.publishing.relay.session", unreachable)
    monkeypatch.setattr("shared.publishing.relay.asyncio", SimpleNamespace(sleep=lost))
    with pytest.raises(OverError):
        await leads.relay.run()
    assert leads.relay.trouble is None
