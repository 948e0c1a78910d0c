"""The whole flow through HTTP on both brokers: order, notification, trace; what a client is told when."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.errors import DeployError
from deploy.native import Runtime
from deploy.paths import REPOSITORY
from deploy.show.traces import Found, Span, find_in_files
from shared.broker.base import Message
from shared.dead_letter.headers import ERROR_TYPE
from shared.envelope import Envelope
from tests.system.running_system import LINES, RunningSystem, eventually


async def test_an_order_is_told_of(system: RunningSystem) -> None:
    user = await system.register()
    order = await system.order(user)
    await system.insist("order", f"/orders/{order}/pay")
    assert await system.until_told(2, order_id=order) == ["order.placed", "order.paid"]
    assert (await system.until_told(3, user_id=user)).count("user.registered") == 1
    placed = (await system.get("order", f"/orders/{order}")).json()
    assert (placed["status"], placed["total_amount"], placed["version"]) == ("paid", 2500, 2)


async def test_an_order_shows_the_verdict_on_it_and_the_schedules_of_all_stand_in_one_table(
    system: RunningSystem,
) -> None:
    user = await system.register()
    lines = [{"sku": "POT-1", "quantity": 1, "unit_amount": 1_000_000}]
    placed = await system.insist("order", "/orders", {"user_id": user, "currency": "EUR", "lines": lines})

    async def verdict() -> Any:
        return (await system.get("order", f"/orders/{placed['id']}")).json()["fraud_verdict"]

    assert await eventually(verdict, "the order shows its verdict") == "reject"
    found = (await system.get("fraud", f"/evaluations/{placed['id']}")).json()
    assert (found["verdict"], found["score"], found["evaluated_by"]) == ("reject", 100, "event")
    assert [reason["rule"] for reason in found["reasons"]] == ["amount", "new_user"]

    async def table() -> Any:
        told = (await system.get("jobs", "/schedules")).json()
        return told if told["unanswered"] == [] else None

    told = await eventually(table, "all services answer")
    assert {(one["service"], one["name"], one["cron"], one["time_zone"]) for one in told["items"]} == {
        ("fraud", "fraud-batch", "0 0 * * *", "Asia/Seoul"),
        ("report", "daily-sales-report", "0 9 * * *", "Asia/Seoul"),
    }


async def test_one_trace_leads_from_the_request_to_the_notification(system: RunningSystem) -> None:
    user = await system.register()
    order = await system.order(user)
    await system.until_told(1, order_id=order)
    telemetry = system.runtime.site.telemetry

    async def complete() -> dict[str, Span] | None:
        spans = _spans(telemetry, order)
        return spans if {"request", "create", "send", "process"} <= spans.keys() else None

    spans = await eventually(complete, "every span of the order's trace is written")
    assert len({span.trace_id for span in spans.values()}) == 1
    assert spans["create"].parent_id == spans["request"].span_id
    assert spans["send"].parent_id == spans["create"].span_id
    assert spans["process"].parent_id == spans["create"].span_id
    assert [spans[name].service for name in ("request", "create", "send", "process")] == [
        "order", "order", "order", "notification"
    ]  # fmt: skip


def _spans(telemetry: Path, order: str) -> dict[str, Span]:
    """By what they do; of those who process the event, notification (reports and verdicts have theirs)."""
    try:
        found: Found = find_in_files(telemetry, order)
    except DeployError:
        return {}
    [trace] = found.traces.values()
    told = [
        span for span in trace if span.service == ("notification" if span.name.startswith("process") else "order")
    ]
    named = {"request" if span.kind == "server" else span.name.partition(" ")[0]: span for span in told}
    assert not any(span.error for span in trace)
    return named


async def test_the_trace_command_prints_one_tree_across_all_three_services(system: RunningSystem) -> None:
    user = await system.register()
    order = await system.order(user)
    await system.until_told(1, order_id=order)

    async def printed() -> str | None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy", "trace", order, "--telemetry", str(system.runtime.site.telemetry),
            cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
        text = output.decode()
        complete = process.returncode == 0 and all(
            part in text for part in ("user  create", "order  create", "order  send", "notification  process")
        )
        return text if complete else None

    await eventually(printed, "the tree has spans of all three services", interval_s=1.0)


async def test_a_deactivated_user_cannot_order_and_need_not_come_back(system: RunningSystem) -> None:
    user = await system.register()
    await system.order(user)
    await system.insist("user", f"/users/{user}/deactivate")

    async def refused() -> httpx.Response | None:
        answer = await system.post("order", "/orders", {"user_id": user, "currency": "EUR", "lines": LINES})
        return answer if answer.status_code == 409 else None

    answer = await eventually(refused, "the order service has heard of the deactivation")
    assert "retry-after" not in answer.headers
    assert answer.headers["content-type"] == "application/problem+json"

    async def told_of_it() -> bool:
        return (await system.told_of(user_id=user)).count("user.deactivated") == 1

    await eventually(told_of_it, "the user is told of it")


async def test_an_order_for_an_unknown_user_may_come_back(system: RunningSystem) -> None:
    answer = await system.post("order", "/orders", {"user_id": str(uuid4()), "currency": "EUR", "lines": LINES})
    assert answer.status_code == 409
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_key_makes_a_repeated_order_one_order(system: RunningSystem) -> None:
    user, key = await system.register(), str(uuid4())
    first = await system.order(user, key)
    body = {"user_id": user, "currency": "EUR", "lines": LINES}
    answers = await asyncio.gather(*(system.post("order", "/orders", body, key) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["id"] for answer in answers} == {first}
    other = await system.post("order", "/orders", {**body, "currency": "USD"}, key)
    assert other.status_code == 409
    await system.each_told_once([first])
    assert sorted(await system.until_told(2, user_id=user)) == ["order.placed", "user.registered"]


async def test_what_is_published_by_hand_harms_nothing_and_is_accounted_for(system: RunningSystem) -> None:
    """The same wire bytes ten times are one effect; garbage and what is unknown waits in the dead letters."""
    user, order = str(uuid4()), str(uuid4())
    data = {"order_id": order, "user_id": user, "currency": "EUR", "total_amount": 1, "version": 1}
    event = Envelope(source="/by/hand", type="order.placed", subject=order, data=data)
    unknown = Envelope(source="/by/hand", type="order.unheard_of", subject=order, data=data)
    future = Envelope(
        source="/by/hand", type="order.placed", dataschema="urn:tandem:order.placed:99", subject=order, data=data
    )
    bodies = [b"garbage", unknown.encode(), future.encode()]
    system.expected_dead_letters.update(bodies)
    before = len(await system.dead_letters())
    async with system.broker() as broker:
        await broker.declare(("order",))
        messages = [Message("order", "order.placed", order, body) for body in [event.encode()] * 10 + bodies]
        assert await broker.publish(messages) == []

    async def all_put_aside() -> list[str] | None:
        letters = (await system.dead_letters())[before:]
        return [letter.headers[ERROR_TYPE] for letter in letters] if len(letters) >= len(bodies) else None

    causes = await eventually(all_put_aside, "what cannot be read is put aside", interval_s=1.0)
    assert sorted(causes) == ["UndecodableError", "UnknownEventTypeError", "UnknownSchemaError"]
    assert await system.until_told(1, order_id=order) == ["order.placed"]
    await system.quiet()
    assert await system.told_of(order_id=order) == ["order.placed"]


async def test_the_check_sees_a_notification_that_is_missing_or_double(system: RunningSystem) -> None:
    """A test of the tests: both are planted in the notification service's database."""
    user = await system.register()
    lost, doubled = await system.order(user), await system.order(user)
    await system.each_told_once([lost, doubled])
    await system.rows("notification", "delete from notification where order_id::text = $1", lost)
    await system.rows(
        "notification",
        "insert into notification (id, event_source, event_id, event_type, user_id, order_id, version, title,"
        " body)"
        " select id, 'planted', event_id, event_type, user_id, order_id, version, title, body"
        " from notification where order_id::text = $1",
        doubled,
    )
    for planted in (lost, doubled):
        with pytest.raises(AssertionError):
            await system.each_told_once([planted], deadline_s=1)


def test_services_differ_between_brokers_in_two_settings_only(servers: Runtime) -> None:
    rabbit = servers.service_env("order", "rabbit", "compared")
    kafka = servers.service_env("order", "kafka", "compared")
    different = {name for name in {*rabbit, *kafka} if rabbit.get(name) != kafka.get(name)}
    assert different == {"TANDEM_BROKER", "TANDEM_RABBIT_URL", "TANDEM_KAFKA_BOOTSTRAP"}
    assert "TANDEM_KAFKA_BOOTSTRAP" not in rabbit
    assert "TANDEM_RABBIT_URL" not in kafka
