"""What a message has when it is given back: all that came with it, and nothing of what was noted on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson
from msgspec import structs

from shared.broker.base import Delivery, Settlement
from shared.broker.unreadable import UNREADABLE
from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import Kind
from tests.integration.letters import letters_of
from tests.integration.world import World, eventually, happened

THEIRS = {"their-own": "x", "tandem-of-somebody": "y"}
NOTED = {dead_letter.KEY_LEFT_OUT: "2097152", UNREADABLE: "RecursionError: nested too deeply"}
ADDED = {dead_letter.LETTER_ID, dead_letter.REDRIVE}
"""To what somebody asks for."""


async def test_notes_on_a_letter_are_shown_and_are_not_given_back_as_the_messages_own(world: World) -> None:
    broker, back = await world.publisher(), asyncio.Queue[Delivery]()

    async def take(batch: Sequence[Delivery]) -> Sequence[Settlement]:
        for delivery in batch:
            back.put_nowait(delivery)
        return [Settlement.ACK] * len(batch)

    await broker.subscribe(world.subscription, take)
    [delivery] = world.deliver([happened(1)])
    failed = {dead_letter.KIND: Kind.FAILED.value, dead_letter.ERROR_TYPE: "BusinessError"}
    async with letters_of(world) as letters:
        await broker.publish_dead_letter(
            world.subscription, structs.replace(delivery, headers={**THEIRS, **NOTED}), failed
        )
        [row] = await letters.until(1, "pending")
        shown = (await letters.get(f"/dead-letters/{row['id']}"))["headers"]
        assert shown.items() >= {**THEIRS, **NOTED}.items()
        # A version that took the notes for the message's own kept them, and this, in the same place.
        kept = orjson.dumps({**orjson.loads(row["headers"]), dead_letter.HEADERS_LEFT_OUT: "7"}).decode()
        await letters.execute(f"update dead_letter set headers = '{kept}'")
        assert (await letters.post(f"/dead-letters/{row['id']}/redrive")).status_code == 202
        given_back = await asyncio.wait_for(back.get(), 30)

        async def redriven() -> bool:
            return await letters.states() == ["redriven"]

        await eventually(redriven, "it is noted that it was given back")
    names = given_back.headers.keys()
    assert given_back.headers.items() >= THEIRS.items()
    assert {name for name in names if dead_letter.is_own(name)} == ADDED
