"""On databases that an earlier version left, today's services answer as those of then did, and go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from deploy.native import Runtime
from services.notification import app as notification_app
from services.order import app as order_app
from services.user import app as user_app
from shared.envelope import Envelope
from shared.process.service import Service
from tests.integration.recording import Recording, recording, upgraded
from tests.integration.served import Running, served

SINCE_THEN = {"fraud_verdict": None, "note": None}
"""What an order of today has besides."""
TIMES = {"registered_at", "updated_at", "placed_at", "recorded_at"}
"""Moved to now with everything that is recorded."""


@pytest.fixture(scope="module")
def left() -> Recording:
    return recording("services")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def taken_over(stack: AsyncExitStack, servers: Runtime, service: Service, left: Recording) -> Running:
    """Today's service on what was left of it."""
    found = left[service.name]
    dsn = await upgraded(servers, service.name, found["version"], found["rows"])
    return served(stack, servers, service, dsn)


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in TIMES}


def waiting(left: Recording, service: str) -> Envelope:
    """The one event that waited in the outbox: the broker did not answer any more."""
    [row] = left[service]["rows"]["outbox"]
    return Envelope.decode(row["body"])


async def pages(running: Running, path: str, said: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What a client reads today who goes on with the cursors of then, page by page."""
    [first, second] = said
    found = []
    for page in (path, f"{path}&cursor={first['next_cursor']}"):
        answer = await running.http.get(page)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    assert [page["next_cursor"] for page in found] == [first["next_cursor"], second["next_cursor"]]
    return [[timeless(item) for item in page["items"]] for page in found]


async def test_users_of_then_are_there_and_can_be_changed(
    stack: AsyncExitStack, servers: Runtime, left: Recording
) -> None:
    user = await taken_over(stack, servers, user_app.SERVICE, left)
    for said in left["said"]["users"]:
        assert timeless((await user.http.get(f"/users/{said['id']}")).json()) == timeless(said)

    active, deactivated = (said["id"] for said in left["said"]["users"])
    renamed = await user.http.patch(f"/users/{active}", json={"name": "Ada King"})
    assert (renamed.status_code, renamed.json()["version"]) == (200, left["said"]["users"][0]["version"] + 1)
    assert (await user.http.patch(f"/users/{deactivated}", json={"name": "Bo"})).status_code == 409
    before, after = await user.published()
    assert before == waiting(left, "user")
    assert (after.type, after.data["version"]) == ("user.profile_updated", renamed.json()["version"])


async def test_orders_of_then_are_there_and_a_request_that_was_answered_gets_its_answer(
    stack: AsyncExitStack, servers: Runtime, left: Recording
) -> None:
    order, said = await taken_over(stack, servers, order_app.SERVICE, left), left["said"]
    path = f"/orders?user_id={said['ids']['ada']}&limit=2"
    expected = [[timeless(item) | SINCE_THEN for item in page["items"]] for page in said["orders"]]
    assert await pages(order, path, said["orders"]) == expected

    headers = {"idempotency-key": "recorded-order"}
    again = await order.http.post("/orders", json=said["request"], headers=headers)
    answered = said["replayed"]
    assert (again.status_code, again.headers["location"]) == (answered["status"], answered["location"])
    assert again.text == answered["body"]
    assert again.headers["idempotent-replayed"] == "true"

    assert (await order.http.post(f"/orders/{said['ids']['cancelled']}/pay")).status_code == 409
    refused = await order.http.post("/orders", json=said["request"] | {"user_id": said["ids"]["bo"]})
    assert (refused.status_code, refused.json()["title"]) == (409, "The user is deactivated")
    placed = await order.http.post("/orders", json=said["request"])
    assert placed.status_code == 201
    assert (await order.http.post(f"{placed.headers['location']}/pay")).status_code == 200
    before, *after = await order.published()
    assert before == waiting(left, "order")
    assert [event.type for event in after] == ["order.placed", "order.paid"]


async def test_notifications_of_then_are_there_and_what_waited_to_be_published_is_understood(
    stack: AsyncExitStack, servers: Runtime, left: Recording
) -> None:
    notification, said = await taken_over(stack, servers, notification_app.SERVICE, left), left["said"]
    path = f"/notifications?user_id={said['ids']['ada']}&limit=4"
    expected = [[timeless(item) for item in page["items"]] for page in said["notifications"]]
    assert await pages(notification, path, said["notifications"]) == expected

    for service in ("user", "order"):
        await notification.take(waiting(left, service))
    newest = (await notification.http.get(path)).json()["items"]
    assert [item["event_type"] for item in newest[:2]] == ["order.paid", "user.profile_updated"]
    assert timeless(newest[2]) == expected[0][0]
    [row] = await notification.rows("select name, version from recipient where name like 'Ada%'")
    assert (row.name, row.version) == ("Ada L.", 2)
