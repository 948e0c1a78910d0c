"""One batch of the relay: what is published, told to telemetry, deleted and kept; what is read ahead beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from shared.broker.base import Message, PublishFailure
from shared.errors import UnavailableError, UnroutableError
from shared.publishing.relay import Relay, _side_by_side
from shared.publishing.sending import STANDS_STILL_S
from tests.unit.stages import settings_with

Row = dict[str, Any]


def row(position: int, key: str, channel: str = "thing") -> Row:
    return {
        "position": position,
        "channel": channel,
        "type": f"{channel}.happened",
        "key": key,
        "body": b"%d" % position,
        "event_id": f"event-{position}",
        "traceparent": f"trace-{position}",
    }


class Batches:
    """A relay with a publisher, a reader and a telemetry that take note of what they are asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        clock = SimpleNamespace(monotonic=lambda: self.now, time_ns=lambda: 7)
        for module in ("relay", "sending"):
            monkeypatch.setattr(f"shared.publishing.{module}.time", clock)
        asleep = SimpleNamespace(sleep=self._sleep, Event=asyncio.Event, gather=asyncio.gather)
        monkeypatch.setattr("shared.publishing.relay.asyncio", asleep)
        self.slept = 0
        self.hangs = False
        self.refused: dict[str, Exception] = {}
        self.away: UnavailableError | None = None
        self.published: list[Message] = []
        self.told: list[tuple[object, ...]] = []
        self.deleted: list[int] = []
        both: Any = self
        self.relay = Relay(settings_with(), both, both, clock=lambda: self.now)

    async def _sleep(self, _seconds: float) -> None:
        self.slept += 1

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        self.published += messages
        if self.hangs:
            await asyncio.Event().wait()
        if self.away is not None:
            raise self.away
        return [PublishFailure(m, self.refused[m.key]) for m in messages if m.key in self.refused]

    def sent(self, channel: str, events: object, started_ns: int, ended_ns: int, failed: frozenset[str]) -> None:
        assert ended_ns == started_ns
        self.told.append((channel, events, started_ns, set(failed)))

    async def delete(self, positions: Sequence[int]) -> None:
        self.deleted += positions

    async def one(self, *rows: Row, ahead: Any = None) -> tuple[list[int], Sequence[Any]]:
        self.told.clear()
        records: Any = rows
        reader: Any = self
        return await self.relay._publish(reader, records, ahead)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(monkeypatch)


async def answer(rows: Sequence[Any]) -> Sequence[Any]:
    return rows


async def test_what_is_confirmed_is_left_for_the_next_look_to_delete(batches: Batches) -> None:
    confirmed, following = await batches.one(row(1, "a"), row(2, "b", "other"), ahead=answer(["next"]))
    assert (confirmed, list(following), batches.deleted, batches.slept) == ([1, 2], ["next"], [], 0)
    assert batches.published == [
        Message("thing", "thing.happened", "a", b"1"),
        Message("other", "other.happened", "b", b"2"),
    ]
    assert batches.told == [
        ("other", [("event-2", "other.happened", "trace-2")], 7, set()),
        ("thing", [("event-1", "thing.happened", "trace-1")], 7, set()),
    ]
    assert await batches.one(row(3, "c")) == ([3], ())
    assert batches.told == [], "of an event by itself it is told with others"
    for number in range(4, 18):
        await batches.one(row(number, "c"))
        assert batches.told == []
    await batches.one(row(18, "c"))
    assert [events for _, events, *_ in batches.told] == [
        [(f"event-{number}", "thing.happened", f"trace-{number}")] for number in range(3, 19)
    ]


async def test_of_a_batch_in_which_something_failed_the_rest_is_deleted_and_what_was_read_ahead_is_left(
    batches: Batches,
) -> None:
    batches.refused = {"b": UnroutableError("nobody")}
    rows = (row(1, "a"), row(2, "b"), row(3, "c", "other"), row(4, "b", "other"))
    assert await batches.one(*rows, ahead=answer(["next"])) == ([], ())
    assert batches.deleted == [1, 3]
    assert [(channel, failed) for channel, _, _, failed in batches.told] == [
        ("other", {"event-4"}),
        ("thing", {"event-2"}),
    ]
    assert (list(batches.relay._kept_back()), batches.slept) == (["b"], 0)


async def test_where_nothing_was_confirmed_nothing_is_deleted_and_everything_waits(batches: Batches) -> None:
    batches.away = UnavailableError("no broker")
    assert await batches.one(row(1, "a"), row(2, "b")) == ([], ())
    assert (batches.deleted, batches.slept, list(batches.relay._kept_back())) == ([], 1, [])
    assert [failed for *_, failed in batches.told] == [{"event-1", "event-2"}]


async def test_a_relay_stands_still_from_the_first_failure_until_something_is_confirmed(batches: Batches) -> None:
    relay = batches.relay
    batches.away = UnavailableError("no broker")
    for _ in range(3):
        await batches.one(row(1, "a"))
        assert relay.trouble is None
        batches.now += STANDS_STILL_S / 2 - 1
    batches.now += 3
    assert relay.trouble == "stands still, with events waiting: no broker"
    batches.away, batches.refused = None, {"a": UnroutableError("nobody")}
    await batches.one(row(1, "a"), row(2, "b"))
    assert relay.trouble is None, "something has left"
    batches.now += STANDS_STILL_S - 1
    assert relay.trouble is None
    batches.now += 1
    assert relay.trouble == "stands still, with events waiting: nobody"
    batches.refused = {}
    await batches.one(row(1, "a"))
    batches.now += 2 * STANDS_STILL_S
    assert relay.trouble is None, "nothing is known to wait"


async def test_a_broker_that_does_not_answer_is_told_of_before_it_has_refused_anything(batches: Batches) -> None:
    batches.refused = {"a": UnroutableError("nobody")}
    await batches.one(row(1, "a"), row(2, "b"))
    batches.refused = {}
    await batches.one(row(1, "a"))
    batches.hangs = True
    publishing = asyncio.create_task(batches.one(row(3, "a")))
    await asyncio.sleep(0)
    batches.now += STANDS_STILL_S
    assert batches.relay.trouble == "stands still, with events waiting: the broker does not answer"
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing


async def test_after_a_success_the_waits_begin_anew(batches: Batches) -> None:
    batches.away = UnavailableError("no broker")
    for _ in range(3):
        await batches.one(row(1, "a"))
    assert batches.relay._sending.failures_in_a_row == 3
    batches.away = None
    await batches.one(row(1, "a"))
    assert batches.relay._sending.failures_in_a_row == 0


@pytest.mark.parametrize(
    ("fail_points", "published"), [("relay.before_publish=raise", 0), ("relay.after_publish=raise", 1)]
)
async def test_a_place_of_the_relay_is_reached_before_or_behind_the_broker(
    monkeypatch: pytest.MonkeyPatch, fail_points: str, published: int
) -> None:
    batches = Batches(monkeypatch)
    both: Any = batches
    batches.relay = Relay(settings_with(failpoints=fail_points), both, both)
    with pytest.raises(Exception, match=fail_points.partition("=")[0]):
        await batches.one(row(1, "a"))
    assert (len(batches.published), batches.deleted) == (published, [])


def failing(error: Exception, ended: list[str]) -> Callable[[], Any]:
    async def fail() -> Any:
        await asyncio.sleep(0)
        ended.append("failed")
        raise error

    return fail


def slow(ended: list[str]) -> Callable[[], Any]:
    async def wait() -> Any:
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append("waited")
        return []

    return wait


@pytest.mark.parametrize("publishing_fails", [True, False])
async def test_whatever_becomes_of_the_one_the_other_has_ended(publishing_fails: bool) -> None:
    ended: list[str] = []
    error = KeyError("planted")
    fails, waits = failing(error, ended)(), slow(ended)()
    both = (fails, waits) if publishing_fails else (waits, fails)
    with pytest.raises(KeyError) as raised:
        await _side_by_side(*both)
    assert (raised.value is error, ended) == (True, ["failed", "waited"])
