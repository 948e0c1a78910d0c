"""The dead-letter service on real servers, with replicas: kept, redriven once, resolved with the effect."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from msgspec import structs

from shared.broker.base import Delivery
from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import Kind
from shared.errors import BusinessError, DelayError
from shared.event import Event
from shared.publishing.uow import UnitOfWork
from tests.integration.letters import letters_of, webhook
from tests.integration.smtp import smtp_server
from tests.integration.world import Happened, World, eventually, happened, take_effect

REPLICAS = 2
OPERATOR = "On call <ops@tandem.example>"


class Flawed:
    """A handler with a flaw that can be taken away; counts its runs by number."""

    def __init__(self, *poison: int, error: Exception | None = None) -> None:
        self.poison = set(poison)
        self.error = error or BusinessError("it cannot be")
        self.runs: Counter[int] = Counter()

    async def __call__(self, event: Event[Happened], uow: UnitOfWork) -> None:
        self.runs[event.data.number] += 1
        take_effect(event, uow)
        if event.data.number in self.poison:
            raise self.error


@pytest.mark.timeout(300)
async def test_poison_is_grouped_redriven_once_and_resolved_with_its_effect(world: World) -> None:
    handler = Flawed(*range(0, 30, 3))
    async with (
        webhook() as (url, alerts),
        smtp_server() as smtp,
        letters_of(
            world,
            REPLICAS,
            alert_webhook_url=url,
            smtp_url=smtp.url,
            alert_mail_to=OPERATOR,
            metrics_interval_s=0.2,
        ) as letters,
        world.consumer(handler),
    ):
        events = [happened(number, key=f"key-{number % 5}") for number in range(30)]
        await world.publish(*events, b"no envelope", b"no envelope either")
        rows = await letters.until(12, "pending")
        await world.await_effects(20)
        groups = (await letters.get("/dead-letters/groups"))["items"]
        assert [(group["error_type"], group["count"]) for group in groups] == [
            ("BusinessError", 10), ("UndecodableError", 2)
        ]  # fmt: skip
        cause = {"fingerprint": groups[0]["fingerprint"]}
        dry = await letters.post("/dead-letters/redrive", {"filter": cause, "dry_run": True})
        assert (dry.status_code, dry.json()["matched"], dry.json()["id"]) == (202, 10, None)
        assert await letters.states() == ["pending"] * 12
        handler.poison.clear()
        asked = await letters.post("/dead-letters/redrive", {"filter": cause, "rate_per_s": 100})
        assert (asked.status_code, asked.json()["matched"]) == (202, 10)

        async def resolved() -> dict[str, Any] | None:
            progress: dict[str, Any] = await letters.get(asked.headers["location"])
            return progress if progress["states"]["resolved"] == 10 else None

        progress = await eventually(resolved, "the redrive is resolved")
        assert progress["waiting"] == 0
        rows = await letters.rows()

        async def measured() -> bool:
            page = (await letters.http.get("/metrics")).text
            return any(
                line.startswith("tandem_dead_letters") and 'state="resolved"' in line and line.endswith(" 10.0")
                for line in page.splitlines()
            )

        await eventually(measured, "the gauge says how many are resolved")
    assert sorted(alert["error_type"] for alert in alerts) == ["BusinessError", "UndecodableError"]
    assert sorted(mail["Subject"] for mail in smtp.mails) == [
        "dead_letter.alert BusinessError", "dead_letter.alert UndecodableError"
    ]  # fmt: skip
    assert {mail["To"].addresses[0].addr_spec for mail in smtp.mails} == {"ops@tandem.example"}
    assert groups[0]["fingerprint"] in "".join(mail.get_content() for mail in smtp.mails)
    assert sorted(await world.numbers()) == list(range(30)), "lost or doubled"
    assert Counter(row["state"] for row in rows) == {"resolved": 10, "pending": 2}
    assert {row["redrives"] for row in rows if row["state"] == "resolved"} == {1}
    assert {handler.runs[number] for number in range(0, 30, 3)} == {2}, "redriven twice"


@pytest.mark.timeout(300)
async def test_the_schedule_redrives_each_letter_once_a_turn_and_parks_it_in_the_end(world: World) -> None:
    handler = Flawed(*range(25))
    schedule: dict[str, Any] = {
        "redrive_interval_s": 0.3,
        "redrive_backoff_initial_s": 0.2,
        "redrive_attempts_max": 3,
    }
    async with letters_of(world, REPLICAS, **schedule) as letters, world.consumer(handler):
        await world.publish(*(happened(number, key=f"key-{number}") for number in range(25)))
        rows = await letters.until(25, "parked")
        assert {row["redrives"] for row in rows} == {3}
        assert set(handler.runs.values()) == {4}, "two replicas redrove one letter"
        handler.poison.clear()
        one = rows[0]["id"]
        assert (await letters.post(f"/dead-letters/{one}/redrive")).status_code == 202

        async def resolved() -> bool:
            return bool((await letters.get(f"/dead-letters/{one}"))["state"] == "resolved")

        await eventually(resolved, "what somebody redrives is resolved")
        assert (await letters.post(f"/dead-letters/{one}/redrive")).status_code == 409
    assert len(await world.numbers()) == 1


@pytest.mark.timeout(300)
async def test_a_delayed_event_comes_again_until_it_takes_effect_and_uses_nothing_up(world: World) -> None:
    handler = Flawed(1, 2, error=DelayError("away", delay_s=0.2))
    async with letters_of(world, redrive_attempts_max=0) as letters, world.consumer(handler):
        await world.publish(*(happened(number) for number in range(4)))

        async def tried_often() -> bool:
            return min(handler.runs[1], handler.runs[2]) >= 4

        await eventually(tried_often, "it comes again and again")
        handler.poison.clear()
        rows = await letters.until(2, "resolved")
    assert sorted(await world.numbers()) == [0, 1, 2, 3]
    assert [row["kind"] for row in rows] == ["delayed"] * 2
    assert all(row["redrives"] >= 3 and row["tries"] == 0 for row in rows)


@pytest.mark.timeout(300)
async def test_a_redrive_without_an_answer_is_repeated_and_harmless(world: World) -> None:
    handler = Flawed(1)
    schedule: dict[str, Any] = {"redrive_answer_timeout_s": 0.5, "redrive_attempts_max": 10}
    async with letters_of(world, **schedule) as letters:
        async with world.consumer(handler):
            await world.publish(happened(1))
            [row] = await letters.until(1, "pending")
        handler.poison.clear()
        assert (await letters.post(f"/dead-letters/{row['id']}/redrive")).status_code == 202

        async def repeated() -> bool:
            return bool((await letters.rows())[0]["redrives"] >= 3)

        await eventually(repeated, "nobody answers, so it is redriven again")
        async with world.consumer(handler):
            await letters.until(1, "resolved")
            await world.drained()
    assert await world.real_numbers() == [1], "lost or doubled"


@pytest.mark.timeout(300)
async def test_what_is_said_late_or_twice_changes_nothing(world: World) -> None:
    broker = await world.publisher()

    async def say(kind: Kind, event: Any, redrive: int, **more: str) -> None:
        delivery = world.deliver([event])[0]
        letter = str(dead_letter.letter_id(world.subscription.queue, delivery))
        headers = {dead_letter.KIND: kind.value, dead_letter.LETTER_ID: letter, dead_letter.REDRIVE: str(redrive)}
        await broker.publish_dead_letter(world.subscription, _with_key(delivery), headers | more)

    killer, poison = happened(1), happened(2)
    async with letters_of(world, REPLICAS) as letters:
        for _ in range(3):
            await say(Kind.FAILED, killer, 0, **{dead_letter.ERROR_TYPE: "AttemptsExhaustedError"})
            await say(Kind.FAILED, poison, 2, **{dead_letter.ERROR_TYPE: "BusinessError"})
        await say(Kind.FAILED, poison, 1, **{dead_letter.ERROR_TYPE: "KeyError"})

        async def both() -> list[dict[str, Any]] | None:
            rows = sorted(await letters.rows(), key=lambda row: row["state"])
            return rows if len(rows) == 2 else None

        parked, pending = await eventually(both, "both are kept")
        assert (parked["state"], pending["state"]) == ("parked", "pending"), "what kills is parked at once"
        for _ in range(2):
            await say(Kind.RECEIPT, poison, 2)
            await say(Kind.RECEIPT, killer, 1)
        await letters.until(2, "resolved")
        await say(Kind.FAILED, poison, 2, **{dead_letter.ERROR_TYPE: "KeyError"})
        await say(Kind.FAILED, happened(3), 0)  # comes behind all others of its key

        async def three() -> bool:
            return len(await letters.rows()) == 3

        await eventually(three, "the last one is kept")
        rows = (await letters.rows())[:2]
    assert [row["state"] for row in rows] == ["resolved"] * 2
    assert {row["error_type"] for row in rows} == {"AttemptsExhaustedError", "BusinessError"}


def _with_key(delivery: Delivery) -> Delivery:
    return structs.replace(delivery, key="k")
