"""Stamps tell what became of each event: when it passed, whether its bytes and its order were kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from experiment.checker import Effect
from experiment.clock import Clock
from experiment.ledger import Entry
from experiment.stamping import Kind, event_digest
from experiment.stamping.planted import Planted, Plants, planted
from experiment.stamping.process import StampedUnits, stamp_broker
from experiment.stamping.stamp_file import StampFile, body_digest
from experiment.stamps import STAGES, Passage, Stages, StampReader, Times, passage_of
from shared.broker import BatchHandler, Delivery, Message, PublishFailure, Settlement, Subscription
from shared.envelope import Envelope
from shared.errors import UnavailableError

SOURCE = "/services/order"
Steps = list[tuple[Kind, int, str, bytes]]
"""Kind, time, event, body."""


def effect(key: str, sequence: int, position: int) -> Effect:
    return Effect(position, f"{SOURCE} {key}{sequence}", "order.placed", key, sequence, 0.0)


def way_of(event: str, at_ns: int, body: bytes = b"body") -> Steps:
    """All stamps of an event, from `at_ns` on."""
    return [
        (Kind.SENT, at_ns, event, body),
        (Kind.CONFIRMED, at_ns + 3, event, body),
        (Kind.RECEIVED, at_ns + 4, event, body),
        (Kind.DURABLE, at_ns + 9, event, b""),
    ]


def written(directory: Path, steps: Steps) -> StampReader:
    file = StampFile(directory / "any.stamps")
    for kind, at_ns, event, body in steps:
        file.write(kind, at_ns, [(event_digest(SOURCE, event), body_digest(body) if body else None)])
    reader = StampReader(directory)
    reader.read()
    return reader


EFFECTS = [effect("a", 1, 1), effect("a", 2, 2), effect("b", 1, 3)]
SOUND = [*way_of("a1", 100), *way_of("a2", 200), *way_of("b1", 300)]


def passage(directory: Path, steps: Steps) -> Passage:
    return passage_of(EFFECTS, written(directory, steps).times)


def test_nothing_is_found_where_nothing_went_wrong(tmp_path: Path) -> None:
    found = passage(tmp_path, SOUND)
    assert found == Passage(stamped=3)
    assert found.sound


def test_other_bytes_than_were_sent_are_a_corruption(tmp_path: Path) -> None:
    changed = [(kind, at, event, b"bodY" if (kind, event) == (Kind.RECEIVED, "b1") else body)
               for kind, at, event, body in SOUND]  # fmt: skip
    found = passage(tmp_path, changed)
    assert found == Passage(stamped=3, corrupted=1)
    assert not found.sound


def test_a_second_delivery_is_counted_and_allowed(tmp_path: Path) -> None:
    found = passage(tmp_path, [*SOUND, (Kind.RECEIVED, 400, "a1", b"body")])
    assert found == Passage(stamped=3, duplicate_deliveries=1)
    assert found.sound


def test_an_earlier_event_of_a_key_that_is_delivered_later_is_out_of_order(tmp_path: Path) -> None:
    overtaken = [*way_of("a2", 100), *way_of("a1", 200), *way_of("b1", 50)]
    found = passage(tmp_path, overtaken)
    assert (found.delivered_out_of_order, found.committed_out_of_order) == (1, 1)
    assert not found.sound


def test_an_inverted_commit_order_is_found_though_deliveries_were_in_order(tmp_path: Path) -> None:
    late = [(kind, 900 if (kind, event) == (Kind.DURABLE, "a1") else at, event, body)
            for kind, at, event, body in SOUND]  # fmt: skip
    found = passage(tmp_path, late)
    assert (found.delivered_out_of_order, found.committed_out_of_order) == (0, 1)
    assert not found.sound


def test_one_commit_of_several_events_is_in_order(tmp_path: Path) -> None:
    together = [(kind, 999 if kind is Kind.DURABLE else at, event, body) for kind, at, event, body in SOUND]
    assert passage(tmp_path, together) == Passage(stamped=3)


def test_an_effect_without_every_stamp_is_counted_as_such(tmp_path: Path) -> None:
    assert passage(tmp_path, SOUND[:-1]) == Passage(stamped=2, unstamped=1)


def test_half_a_record_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "any.stamps"
    reader = written(tmp_path, SOUND)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:10])
    reader.read()
    assert len(reader.times) == 3
    path.write_bytes(whole + whole[: len(whole) // 12])
    reader.read()
    assert reader.times[event_digest(SOURCE, "a1")].deliveries == 1
    reader.forget()
    reader.read()
    assert reader.times == {}, "what was read is not read again"


def test_the_means_of_the_stages_add_up_to_the_latency() -> None:
    clock, stages = Clock(), Stages()
    start_s = clock.at_s(0)
    for extra_ns in (0, 2_000_000):
        entry = Entry("steady-1", "order.placed", start_s + 0.001, sent_s=start_s + 0.002)
        entry.acknowledged_s = start_s + 0.006
        times = Times(sent_ns=7_000_000, confirmed_ns=8_000_000, received_ns=10_000_000)
        times.durable_ns = 20_000_000 + extra_ns
        stages.record(entry, times, clock)
    figures = stages.figures()
    assert sum(figures[name]["mean_ms"] or 0 for name in STAGES) == pytest.approx(20, abs=0.01)
    assert figures["to_effect"]["samples"] == 2


def test_an_event_without_every_stamp_is_in_no_stage() -> None:
    stages = Stages()
    stages.record(
        Entry("steady-1", "order.placed", 1.0, sent_s=1.0, acknowledged_s=1.0), Times(sent_ns=1), Clock()
    )
    assert stages.figures() == {}


class Adapter:
    """Fails the second message, and hands over an event and what is none."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        return [PublishFailure(messages[1], UnavailableError("away"))]

    async def subscribe(self, _subscription: Subscription, handler: BatchHandler) -> None:
        body = Envelope(source=SOURCE, id="a1", type="order.placed", data={}).encode()
        delivery = Delivery(body, {}, "order", "a", redelivered=False, position="1", token=None)
        bad = Delivery(b"no event", {}, "order", None, redelivered=False, position="2", token=None)
        assert await handler([delivery, bad]) == [Settlement.ACK, Settlement.ACK]


async def acknowledge(deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
    return [Settlement.ACK] * len(deliveries)


async def test_what_passes_an_adapter_is_stamped_and_what_failed_is_not(tmp_path: Path) -> None:
    adapter = Adapter()
    stamp_broker(adapter, StampFile(tmp_path / "any.stamps"), Plants(tmp_path))
    messages = [
        Message(
            "order", "order.placed", "a", Envelope(source=SOURCE, id=each, type="order.placed", data={}).encode()
        )
        for each in ("a1", "a2")
    ]
    [failure] = await adapter.publish(messages)
    assert failure.message is messages[1]
    await adapter.subscribe(Subscription(channel="order", subscriber="any", types=frozenset()), acknowledge)
    reader = StampReader(tmp_path)
    reader.read()
    [times] = reader.times.values()
    assert times.sent_ns is not None
    assert times.confirmed_ns is not None
    assert times.received_ns is not None
    assert times.sent_ns <= times.confirmed_ns <= times.received_ns
    assert times.deliveries == 1


@pytest.mark.parametrize("again", ["a-first", "z-last"])
def test_what_a_second_consumer_is_given_once_more_was_delivered_when_the_first_one_got_it(
    tmp_path: Path, again: str
) -> None:
    """In whichever order the stamps of both are read."""
    twice = (Kind.RECEIVED, 500, "a1", b"body")
    StampFile(tmp_path / f"{again}.stamps").write(
        twice[0], twice[1], [(event_digest(SOURCE, "a1"), body_digest(b"body"))]
    )
    found = passage(tmp_path, SOUND)
    assert found == Passage(stamped=3, duplicate_deliveries=1)


class Connections:
    """Of a database from which nothing is asked."""

    @asynccontextmanager
    async def late_transaction(self) -> AsyncIterator[tuple[None, None]]:
        yield None, None


@pytest.mark.parametrize("roles", ["api", "consumer"])
async def test_a_delay_is_planted_in_requests_alone_also_on_connections_of_their_own(
    tmp_path: Path, roles: str
) -> None:
    """Where the same process consumes, HTTP has connections of its own."""
    spans, settings = cast(Any, None), SimpleNamespace(roles={roles})
    parts: Any = SimpleNamespace(
        database=None, leading=None, settings=settings, telemetry=SimpleNamespace(spans=spans)
    )
    units = StampedUnits(parts, "order", StampFile(tmp_path / "any.stamps"), Plants(tmp_path))
    with planted(tmp_path, Planted(delay_s=0.01)):
        async with units.on(cast(Any, Connections())).begin():
            pass
    reader = StampReader(tmp_path)
    reader.read()
    assert [took_s >= 0.01 for took_s in reader.planted_s] == ([True] if roles == "api" else [])
