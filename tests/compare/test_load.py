"""The load generator against a real HTTP server that writes down what it is asked."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestServer

from experiment.clock import Clock
from experiment.ledger import Outcome
from experiment.load import LoadGenerator
from experiment.schedule import Operation

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
