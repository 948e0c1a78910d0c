"""The load generator against a real HTTP server that writes down what it is asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiohttp import web
from aiohttp.test_utils import TestServer

from experiment.clock import Clock
from experiment.ledger import Outcome
from experiment.load import LoadGenerator
from experiment.schedule import Operation

PLACINGS = [Operation(at_s=0.0, kind="place", number=number, user=0) for number in range(3)]
ANSWERED_AFTER_S = 0.3
UPDATES = [Operation(at_s=0.0, kind="update", number=number, user=0) for number in range(3)]


async def test_no_two_changes_of_a_user_ask_for_the_same_name_in_whatever_phase() -> None:
    """A change that changes nothing publishes nothing, and would be taken for a lost event."""
    names: list[str] = []

    async def change(request: web.Request) -> web.Response:
        names.append((await request.json())["name"])
        return web.json_response({"id": "ada", "version": len(names)})

    app = web.Application()
    app.router.add_patch("/users/ada", change)
    async with TestServer(app, host="127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.port}"
        generator = LoadGenerator(
            {"user": url, "order": url}, ["ada"], Clock(), in_flight_max=10, timeout_s=5, lines_per_order=1
        )
        entries = [entry for phase in ("first", "second") for entry in (await generator.run(UPDATES, phase))[0]]
    assert [entry.outcome for entry in entries] == [Outcome.ACKNOWLEDGED] * 6
    assert len(names) == len(set(names)) == 6


async def test_how_late_a_follow_up_is_sent_counts_from_the_answer_to_its_order() -> None:
    """Waiting for that is the system's time, and not the generator's; what comes after it is."""

    async def place(_request: web.Request) -> web.Response:
        await asyncio.sleep(ANSWERED_AFTER_S)
        return web.json_response({"id": "order", "version": 1})

    async def pay(_request: web.Request) -> web.Response:
        return web.json_response({"id": "order", "version": 2})

    app = web.Application()
    app.router.add_post("/orders", place)
    app.router.add_post("/orders/order/pay", pay)
    paid = [
        *PLACINGS,
        *(replace(each, kind="pay", number=each.number + 3, order=each.number) for each in PLACINGS),
    ]
    async with TestServer(app, host="127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.port}"
        generator = LoadGenerator(
            {"order": url}, ["ada"], Clock(), in_flight_max=9, timeout_s=5, lines_per_order=1
        )
        entries, report = await generator.run(paid, "first")
    assert [entry.sequence for entry in entries] == [1, 1, 1, 2, 2, 2]
    assert report.send_lag.count == len(paid)
    assert (report.send_lag.percentile_ms(100) or 0) < 1_000 * ANSWERED_AFTER_S


async def test_each_order_has_a_note_of_its_own_of_the_size_that_is_asked_for() -> None:
    """Of the same bytes on both sides, and none where none is asked for."""
    notes: list[str | None] = []

    async def place(request: web.Request) -> web.Response:
        notes.append((await request.json()).get("note"))
        return web.json_response({"id": f"order {len(notes)}", "version": 1})

    app = web.Application()
    app.router.add_post("/orders", place)
    async with TestServer(app, host="127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.port}"
        for size in (1_000, 1_000, 0):
            generator = LoadGenerator(
                {"user": url, "order": url},
                ["ada"],
                Clock(),
                in_flight_max=1,
                timeout_s=5,
                lines_per_order=1,
                note_bytes=size,
                seed="7",
            )
            entries, _ = await generator.run(PLACINGS, "first")
            assert [entry.outcome for entry in entries] == [Outcome.ACKNOWLEDGED] * 3
    first, again, without = notes[:3], notes[3:6], notes[6:]
    assert [len(each or "") for each in first] == [1_000] * 3
    assert len(set(first)) == 3
    assert first == again
    assert without == [None] * 3
