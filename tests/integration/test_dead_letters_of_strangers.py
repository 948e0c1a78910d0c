"""What strangers write into a dead-letter place: all of it is kept, and none of it stops the service."""

from __future__ import annotations

from typing import Any

import pytest

from shared.dead_letter.headers import ATTEMPTS, DUE_AT, ERROR_MESSAGE, KIND, LETTER_ID, REDRIVE, Kind
from tests.conformance.servers_seen import publish_amqp, publish_kafka
from tests.integration.letters import Letters, letters_of
from tests.integration.world import World, eventually

LETTER = "0198c0de-0000-7000-8000-000000000001"
DELAYED = {KIND: Kind.DELAYED.value}
OF_ONE_LETTER = [{LETTER_ID: LETTER, REDRIVE: str(number), ATTEMPTS: "999999999"} for number in (1, 2, 3)]
"""Together they were tried more often than four bytes can count."""
REFUSED = "their-own-that-is-refused"
NO_ROOM_FOR_IT = f"alter table dead_letter add constraint refused check (not headers ? '{REFUSED}')"
ROOM_AGAIN = "alter table dead_letter drop constraint refused"
"""For whatever else a database may refuse."""
STRANGE: list[dict[str, str]] = [
    {ERROR_MESSAGE: "x" * 120_000},
    {ERROR_MESSAGE: "'" * 120_001},
    {**DELAYED, DUE_AT: "0001-01-01T00:00:00+02:00"},
    {**DELAYED, DUE_AT: "9999-12-31T23:59:59-02:00"},
    {REDRIVE: "2000000000", ATTEMPTS: "99999999999999999999"},
    {"\x00": "\x00", "their-own": "\x00"},
    {REFUSED: "x"},
    *OF_ONE_LETTER,
    {"plain": "x"},
]
KEPT = 1 + len(STRANGE) - len(OF_ONE_LETTER) + 1


async def put_aside_by_strangers(world: World, *all_headers: dict[str, str]) -> None:
    """Into one partition, so that each stands behind those before it."""
    queue = world.subscription.queue
    if world.broker_name == "rabbit":
        for number, headers in enumerate(all_headers):
            body = f"no event {number}".encode()
            await publish_amqp(world.runtime, f"{world.channel}.dlx", queue, body, dict(headers))
    else:
        records = [
            (b"k", f"no event {number}".encode(), [(name, text.encode()) for name, text in headers.items()])
            for number, headers in enumerate(all_headers)
        ]
        await publish_kafka(world.runtime, f"{queue}.dlt", records)


async def kept(letters: Letters, count: int) -> list[dict[str, Any]]:
    async def there() -> list[dict[str, Any]] | None:
        rows = await letters.rows()
        return rows if len(rows) == count else None

    rows: list[dict[str, Any]] = await eventually(there, f"{count} letters are kept")
    return rows


@pytest.mark.timeout(180)
async def test_whatever_strangers_write_into_a_dead_letter_place_is_kept_and_given_back(world: World) -> None:
    """On RabbitMQ one of them came through the largest frame that there is, and a redrive adds too much."""
    await world.publisher()
    full = {"their-own": "x" * 130_950}
    async with letters_of(world, redrive_interval_s=600) as letters:
        await letters.execute(NO_ROOM_FOR_IT)
        try:
            await put_aside_by_strangers(world, full, *STRANGE)
            rows = await kept(letters, KEPT)
        finally:
            await letters.execute(ROOM_AGAIN)
        assert [row["body"] for row in rows if not row["whole"]] == [
            b"no event %d" % (1 + STRANGE.index({REFUSED: "x"}))
        ]
        assert {len(row["error_message"]) for row in rows if len(row["error_message"]) > 100} == {1_000}
        assert [row["attempts"] for row in rows if str(row["id"]) == LETTER] == [2**31 - 1]
        assert len((await letters.get("/dead-letters"))["items"]) == KEPT
        assert (await letters.post("/dead-letters/redrive", {"filter": {}})).status_code == 202

        async def all_done() -> list[dict[str, Any]] | None:
            rows = await letters.rows()
            return rows if all(row["state"] in ("redriven", "parked") for row in rows) else None

        rows = await eventually(all_done, "every letter is given back or parked")
    reasons = sorted(row["reason"] for row in rows if row["state"] == "parked")
    assert len(reasons) == 1 + (world.broker_name == "rabbit")
    assert all("of a frame" in reason or "was cut" in reason for reason in reasons)
