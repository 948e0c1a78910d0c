"""Letters that cannot be given back, or are never answered: parked with an alert, and in nobody's way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import Kind
from shared.envelope import Envelope
from shared.errors import BusinessError
from shared.event import Event
from shared.publishing.uow import UnitOfWork
from tests.integration.letters import letters_of, webhook
from tests.integration.misbehaving import HEAD, server_that
from tests.integration.world import Happened, World, eventually, happened, take_effect

UNWANTED, WANTED = 13, 20


@pytest.mark.timeout(300)
async def test_letters_of_a_subscriber_that_is_gone_hold_up_no_redrive_and_are_parked(world: World) -> None:
    is_fixed = False

    async def handle(event: Event[Happened], uow: UnitOfWork) -> None:
        take_effect(event, uow)
        if not is_fixed:
            raise BusinessError("it cannot be")

    schedule: dict[str, Any] = {
        "redrive_interval_s": 0.3,
        "redrive_backoff_initial_s": 600,
        "redrive_attempts_max": 2,
    }
    async with (
        webhook() as (url, alerts),
        letters_of(world, alert_webhook_url=url, alert_interval_s=0.001, **schedule) as letters,
        world.consumer(handle),
    ):
        await world.publish(*(happened(number) for number in range(UNWANTED + WANTED)))
        await letters.until(UNWANTED + WANTED, "pending")
        await letters.execute(f"update dead_letter set subscriber = 'gone' where sequence <= {UNWANTED}")
        is_fixed = True
        # The first portions hold nothing but the unwanted ones.
        asked = await letters.post("/dead-letters/redrive", {"filter": {}, "rate_per_s": WANTED})
        assert asked.json()["matched"] == UNWANTED + WANTED

        async def finished() -> bool:
            progress = await letters.get(asked.headers["location"])
            return bool(progress["finished"] and progress["states"]["resolved"] == WANTED)

        await eventually(finished, "all others are resolved")
        rows = await letters.rows()
        assert {(row["state"], row["redrives"], row["tries"]) for row in rows[:UNWANTED]} == {("pending", 0, 0)}
        await letters.execute("update dead_letter set due_at = now(), tries = 1 where subscriber = 'gone'")

        async def parked() -> bool:
            return await letters.states() == ["parked"] * UNWANTED + ["resolved"] * WANTED

        await eventually(parked, "those that nobody wants are parked")

        async def alerted() -> list[dict[str, Any]]:
            return [alert for alert in alerts if alert["state"] == "parked"]

        assert {alert["reason"] for alert in await eventually(alerted, "an alert says so")} == {
            "its subscriber has no queue"
        }
    wanted = [orjson.loads(row["body"])["data"]["number"] for row in rows[UNWANTED:]]
    assert sorted(await world.numbers()) == sorted(wanted), "lost or doubled"


async def delay(world: World, error_type: str, events: Sequence[Envelope]) -> None:
    """Put the events into the subscriber's dead-letter place, as if it had delayed them."""
    broker = await world.publisher()
    headers = {
        dead_letter.KIND: Kind.DELAYED.value,
        dead_letter.ERROR_TYPE: error_type,
        dead_letter.ERROR_MESSAGE: "not yet",
    }
    for delivery in world.deliver(events):
        await broker.publish_dead_letter(world.subscription, delivery, headers)


@pytest.mark.timeout(300)
async def test_delayed_events_that_are_never_answered_are_parked_with_one_alert(rabbit_world: World) -> None:
    world = rabbit_world
    await delay(world, "TransientError", [happened(number) for number in range(3)])
    schedule: dict[str, Any] = {"redrive_answer_timeout_s": 0.1, "redrive_attempts_max": 1}
    async with webhook() as (url, alerts), letters_of(world, alert_webhook_url=url, **schedule) as letters:
        await letters.until(3, "parked")

        async def alerted() -> bool:
            return bool(alerts)

        await eventually(alerted, "an alert says so")
    assert [(alert["state"], alert["error_type"], alert["reason"]) for alert in alerts] == [
        ("parked", "TransientError", "no answer to 2 redrives")
    ]


@pytest.mark.timeout(300)
async def test_a_webhook_that_never_ends_its_answer_holds_up_neither_keeping_nor_giving_back(
    rabbit_world: World,
) -> None:
    world = rabbit_world
    schedule: dict[str, Any] = {"redrive_answer_timeout_s": 0.1, "redrive_attempts_max": 1}
    async with (
        server_that(HEAD, b"x", 1.0) as webhook_,
        letters_of(world, alert_webhook_url=webhook_.url, **schedule) as letters,
    ):
        for number in range(3):  # each parked with an alert of its own: given back, not answered, given back
            await delay(world, f"{'ABC'[number]}Error", [happened(number)])
            await letters.until(number + 1, "parked")
        assert webhook_.asked
