"""Poison among good events, over real HTTP: put aside, grouped by cause, and resolved when the cause is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.system.running_system import RunningSystem, eventually

FLAWS = {
    "TANDEM_FAILPOINTS": "handler:order.paid=raise;handler:order.cancelled=raise-transient;"
    "handler:user.deactivated=raise",
    "TANDEM_DELAYS_MAX": "0",  # what may pass is not waited for
    "TANDEM_HANDLER_ATTEMPTS_MAX": "2",
}
USERS, ORDERS, EACH = 4, 16, 4
SUBSCRIBERS = ("notification", "mail")
"""Both run in the process with the flaws."""


@pytest.mark.timeout(300)
async def test_three_kinds_of_poison_are_grouped_redriven_at_a_rate_and_resolved_once(
    system: RunningSystem,
) -> None:
    since = datetime.now(UTC).isoformat()
    async with system.in_place_of("notification-consumer", FLAWS | system.mail):
        users = await _each([system.register() for _ in range(USERS)])
        orders = await _each([system.order(users[number % USERS]) for number in range(ORDERS)])
        paid, cancelled = orders[:EACH], orders[EACH : 2 * EACH]
        await _each([system.insist("order", f"/orders/{order}/pay") for order in paid])
        await _each([system.insist("order", f"/orders/{order}/cancel") for order in cancelled])
        await _each([system.insist("user", f"/users/{user}/deactivate") for user in users])

        async def good_ones_told() -> bool:
            return len(await system.notifications_of(orders)) == ORDERS

        await eventually(good_ones_told, "the good events take effect")
        groups = await eventually(
            lambda: _groups(system, since), "the poison is put aside, in three groups of each"
        )
    assert Counter(group["subscriber"] for group in groups) == dict.fromkeys(SUBSCRIBERS, 3)
    assert Counter(group["type"] for group in groups) == {
        "order.paid": 2, "order.cancelled": 2, "user.deactivated": 2
    }  # fmt: skip
    assert not await _told(system, "order.paid", paid)
    async with system.in_place_of("notification-consumer", system.mail):
        asked = await system.post(
            "dead_letter", "/dead-letters/redrive", {"filter": {"from": since}, "rate_per_s": 50}
        )
        assert (asked.status_code, asked.json()["matched"]) == (202, 6 * EACH)

        async def resolved() -> dict[str, Any] | None:
            progress: dict[str, Any] = (await system.get("dead_letter", asked.headers["location"])).json()
            return progress if progress["states"]["resolved"] == 6 * EACH else None

        progress = await eventually(resolved, "the redrive is resolved")
    assert (progress["finished"] or progress["waiting"] == 0, progress["requested"]) == (True, 6 * EACH)
    assert await _told(system, "order.paid", paid) == dict.fromkeys(paid, 1)
    assert await _told(system, "order.cancelled", cancelled) == dict.fromkeys(cancelled, 1)
    assert await _told(system, "order.placed", orders) == dict.fromkeys(orders, 1)
    for user in users:
        types = await system.told_of(user_id=user)
        assert (types.count("user.registered"), types.count("user.deactivated")) == (1, 1)


async def _each(requests: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*requests))


async def _groups(system: RunningSystem, since: str) -> list[dict[str, Any]] | None:
    answer = await system.get("dead_letter", "/dead-letters/groups", **{"from": since})
    groups: list[dict[str, Any]] = answer.json()["items"]
    return groups if sorted(group["count"] for group in groups) == [EACH] * 6 else None


async def _told(system: RunningSystem, event_type: str, orders: list[str]) -> dict[str, int]:
    rows = await system.rows(
        "notification",
        "select order_id::text as id, count(*) as times from notification"
        " where event_type = $1 and order_id = any($2::uuid[]) group by order_id",
        event_type,
        orders,
    )
    return {row["id"]: row["times"] for row in rows}
