"""The dead-letter service's HTTP over what it keeps: lists, pages, readable payloads, refusals."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import Kind
from tests.integration.letters import Letters, letters_of
from tests.integration.world import World, eventually, happened


async def test_letters_can_be_found_read_and_discarded(rabbit_world: World) -> None:
    world, broker = rabbit_world, await rabbit_world.publisher()
    bodies = [happened(1).encode(), b"plain text", b"\xff\x00", b'{"id": "half an envelope"}']
    for number, delivery in enumerate(world.deliver(bodies)):
        delivery.headers = {"traceparent": "00-1-2-01", "odd\x00name": "odd\x00value"}
        headers = {
            dead_letter.KIND: Kind.FAILED.value,
            dead_letter.ERROR_TYPE: f"Error{number % 2}",
            dead_letter.ERROR_MESSAGE: f"number {number} is \x00 wrong",
            dead_letter.ERROR_STACK: "somewhere",
            dead_letter.ATTEMPTS: "3",
        }
        await broker.publish_dead_letter(world.subscription, delivery, headers)
    async with letters_of(world) as letters:
        await letters.until(4, "pending")
        await _found(letters, world)
        await _read(letters)
        await _refused(letters)


async def _found(letters: Letters, world: World) -> None:
    async def ids(**query: Any) -> list[str]:
        return [item["id"] for item in (await letters.get("/dead-letters", **query))["items"]]

    everything = await ids()
    assert len(everything) == 4
    page = await letters.get("/dead-letters", limit=3)
    rest = await letters.get("/dead-letters", limit=3, cursor=page["next_cursor"])
    assert [item["id"] for item in [*page["items"], *rest["items"]]] == everything
    assert rest["next_cursor"] is None
    assert len(await ids(error_type="Error1")) == 2
    assert len(await ids(type="thing.happened")) == 1
    assert len(await ids(state="parked")) == 0
    assert len(await ids(channel=world.channel, subscriber="tester", to="2999-01-01T00:00:00Z")) == 4
    assert len(await ids(**{"from": "2999-01-01T00:00:00Z"})) == 0
    groups = (await letters.get("/dead-letters/groups"))["items"]
    assert [(group["count"], group["states"]["pending"]) for group in groups] == [(2, 2), (2, 2)]
    assert len(await ids(fingerprint=groups[0]["fingerprint"])) == 2


async def _read(letters: Letters) -> None:
    items = (await letters.get("/dead-letters"))["items"]
    details = [await letters.get(f"/dead-letters/{item['id']}") for item in reversed(items)]
    assert [detail["payload"]["form"] for detail in details] == ["json", "text", "base64", "json"]
    assert details[0]["payload"]["value"]["data"] == {"number": 1}
    assert (details[0]["type"], details[1]["type"], details[3]["event_id"]) == (
        "thing.happened", None, "half an envelope"
    )  # fmt: skip
    assert details[0]["headers"].items() >= {"traceparent": "00-1-2-01"}.items()
    assert (details[0]["attempts"], details[0]["error_stack"]) == (3, "somewhere")


async def _refused(letters: Letters) -> None:
    [row, *_] = await letters.rows()
    one = row["id"]
    for path in (f"/dead-letters/{uuid4()}", f"/dead-letters/redrives/{uuid4()}"):
        answer = await letters.http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    answer = await letters.post(f"/dead-letters/{one}/discard", {"reason": "a test"})
    assert (answer.status_code, answer.json()["state"], answer.json()["reason"]) == (200, "discarded", "a test")
    for command, body in (("discard", {"reason": "again"}), ("redrive", {})):
        answer = await letters.post(f"/dead-letters/{one}/{command}", body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:tandem:problem:illegal-state-change")
    headers = {"idempotency-key": str(uuid4())}
    answers = [
        await letters.http.post("/dead-letters/redrive", json={"filter": {}, "rate_per_s": 1000}, headers=headers)
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["matched"] == 3

    async def given_back() -> bool:
        progress = await letters.get(answers[0].headers["location"])
        return bool(progress["finished"] and progress["states"]["redriven"] == 3)

    await eventually(given_back, "all three are given back")
