"""What an earlier version left, in queues, topics and databases, is taken over: once, and in the same groups."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.broker.base import Message
from shared.envelope import Envelope
from shared.errors import BusinessError, TransientError
from shared.event import Event
from shared.publishing.relay import Relay
from shared.publishing.uow import UnitOfWork
from tests.integration.letters import Letters, letters_of, webhook
from tests.integration.recording import CHANNEL, Recording, declare, insert_rows, recording, remove, send, upgraded
from tests.integration.world import (
    DATABASE,
    TYPE,
    Happened,
    World,
    eventually,
    happened,
    take_effect,
)

WAITING, TAKEN, GIVEN_BACK = {1, 2, 3, 4, 5, 6}, {7, 8}, {20}
"""The numbers of the events that were in the outbox or published, of those that had taken effect, and of the one
that the dead-letter service had just given back."""
CAUSES = 9
AS_IT_WAS = {
    "handler_timeout_s": 1.0,
    "handler_attempts_max": 1,
    "delay_initial_s": 3_600.0,
    "delay_max_s": 3_600.0,
}
REDRIVE_KEY = "recorded-redrive"


class Flawed:
    """The handler whose failures were recorded; today it stands in another file, and has mended its flaws for the
    events of then."""

    def __init__(self) -> None:
        self.flaws = range(120, 125)

    async def handle(self, event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        match event.data.number:
            case 120:
                raise BusinessError(f"order {event.id} cannot be paid: 4 EUR are missing")
            case 121:
                raise KeyError("sku-99")
            case 122:
                raise TransientError("the mail server is busy")
            case 123:
                await asyncio.sleep(60)
            case 124:
                refuse(event)


def refuse(event: Event[Happened]) -> None:
    raise ValueError(f"no such place: {event.data.number}")


def unusable() -> list[Envelope]:
    """Events that were never handed to a handler: of no known type, with other data, of another version."""
    attributes: dict[str, Any] = {"source": "/tests", "partitionkey": "k", "data": {"number": 1}}
    return [
        Envelope(type="thing.unknown", **attributes),
        Envelope(type=TYPE, dataschema=Happened.schema_uri(), **{**attributes, "data": {"number": "few"}}),
        Envelope(type=TYPE, dataschema="tandem:thing.happened:98", **attributes),
    ]


@pytest.fixture
async def left(world: World) -> AsyncIterator[Recording]:
    """The recording, with everything declared as it was then; gone afterwards."""
    world.use_channel(CHANNEL)
    found = recording(world.broker_name)
    await declare(world.runtime, world.broker_name, found)
    yield found
    await world.stack.aclose()
    await remove(world.runtime, world.broker_name, found)


async def upgraded_letters(world: World, left: Recording) -> str:
    """A database of the dead-letter service as it was left, brought up to date by today's migrations."""
    tables = ("dead_letter", "redrive", "alert", "idempotency_key")
    return await upgraded(world.runtime, "dead_letter", "0001", {table: left[table] for table in tables})


@pytest.mark.timeout(300)
async def test_what_an_earlier_version_left_takes_effect_once_and_its_groups_of_letters_go_on(
    world: World, left: Recording
) -> None:
    await send(world.runtime, world.broker_name, [*left["events"], *left["given_back"], *left["dead_letters"]])
    for table in ("outbox", "inbox", "effect"):
        await insert_rows(world.runtime.dsn(DATABASE), table, left[table])
    letters_dsn = await upgraded_letters(world, left)
    assert len({row["fingerprint"] for row in left["dead_letter"]}) == len(left["dead_letter"]) == CAUSES

    publisher = await world.publisher()  # declares: what is there has the same arguments
    relay = asyncio.create_task(Relay(world.settings(), publisher, world.telemetry).run())
    world.stack.callback(relay.cancel)
    async with (
        webhook() as (url, alerts),
        letters_of(world, dsn=letters_dsn, alert_webhook_url=url, alert_interval_s=86_400.0) as letters,
        world.consumer(Flawed().handle, **AS_IT_WAS),
    ):
        await _everything_takes_effect_once(world, letters)
        await _a_request_that_was_answered_gets_its_answer(letters, left)
        await _new_letters_join_the_groups(world, letters)
    assert alerts == [], "these causes are known"


@pytest.mark.timeout(300)
async def test_what_a_consumer_of_an_earlier_version_answers_resolves_its_letter(
    world: World, left: Recording
) -> None:
    """As while consumers are still being replaced: only the dead-letter service is today's."""
    letters_dsn = await upgraded_letters(world, left)
    async with letters_of(world, dsn=letters_dsn) as letters:
        await send(world.runtime, world.broker_name, left["receipt"])

        async def resolved() -> bool:
            return Counter(await letters.states()) == {"pending": CAUSES - 1, "resolved": 1}

        await eventually(resolved, "the letter that was given back is resolved")


async def _everything_takes_effect_once(world: World, letters: Letters) -> None:
    async def all_there() -> bool:
        return {*WAITING, *TAKEN, *GIVEN_BACK} <= {*await world.numbers()}

    await eventually(all_there, "what waited takes effect")

    async def resolved() -> bool:
        return Counter(await letters.states()) == {"pending": CAUSES - 1, "resolved": 1}

    await eventually(resolved, "the letter that was given back is resolved; no letter is kept twice")
    await world.drained()
    assert await world.count("outbox") == 0
    assert sorted(await world.real_numbers()) == sorted({*WAITING, *TAKEN, *GIVEN_BACK}), "lost or doubled"


async def _a_request_that_was_answered_gets_its_answer(letters: Letters, left: Recording) -> None:
    [kept] = left["idempotency_key"]
    headers = {"idempotency-key": REDRIVE_KEY}
    again = await letters.http.post(kept["path"], json={}, headers=headers)
    assert (again.status_code, again.content, again.headers["location"]) == (202, kept["answer"], kept["location"])
    assert again.headers["idempotent-replayed"] == "true"
    other = await letters.http.post(kept["path"], json={"reason": "another"}, headers=headers)
    assert other.status_code == 409


async def _new_letters_join_the_groups(world: World, letters: Letters) -> None:
    poison = [happened(number, key=f"key-{number}") for number in Flawed().flaws]
    await world.publish(*poison, b"no envelope")
    publisher = await world.publisher()
    assert not await publisher.publish([Message(CHANNEL, TYPE, "k", event.encode()) for event in unusable()])

    async def all_kept() -> bool:
        return len(await letters.rows()) == 2 * CAUSES

    await eventually(all_kept, "the new letters are kept")
    groups = (await letters.get("/dead-letters/groups"))["items"]
    counts = {f"{group['error_type']}: {group['error_message'][:40]}": group["count"] for group in groups}
    assert list(counts.values()) == [2] * CAUSES, counts
