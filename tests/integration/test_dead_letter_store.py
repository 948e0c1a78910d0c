"""What the dead-letter service asks of its database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event

from services.dead_letter import handlers
from services.dead_letter.events import read
from services.dead_letter.store import letters as letter_rows
from services.dead_letter.store import listing
from shared.broker.base import Delivery, Subscription
from shared.dead_letter import headers as dead_letter
from shared.dead_letter.headers import Kind
from shared.publishing.uow import UnitOfWork
from tests.integration.letters import emptied
from tests.integration.world import World, happened


async def test_no_message_is_loaded_to_list_letters_or_to_note_what_became_of_them(rabbit_world: World) -> None:
    database = await rabbit_world.opened_database(postgres_dsn=await emptied(rabbit_world))
    policy = handlers.policy_of(rabbit_world.settings())
    [delivery] = rabbit_world.deliver([happened(1)])
    delivery.headers = {dead_letter.KIND: Kind.FAILED.value}
    received = read(rabbit_world.subscription, delivery)
    asked: list[str] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    for _ in range(2):
        async with database.transaction() as connection:
            uow = UnitOfWork(connection, "dead_letter", rabbit_world.telemetry.spans)
            await handlers.receive(uow, [received], policy, alert_interval_s=60)
            [letter] = await handlers.list_letters(uow, listing.Filter(), None, 10)
            await uow.flush()
    assert (letter.letter.id, letter.type) == (received.letter_id, "thing.happened")
    assert len([statement for statement in asked if "FROM dead_letter" in statement]) == 4
    assert [statement for statement in asked if "SELECT" in statement and "dead_letter.body" in statement] == []


async def test_large_letters_are_few_in_memory_at_once_and_one_that_is_larger_goes_alone(
    rabbit_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred of them, as many as are given back at once, would take more than a gigabyte."""
    database = await rabbit_world.opened_database(postgres_dsn=await emptied(rabbit_world))
    policy = handlers.policy_of(rabbit_world.settings())
    monkeypatch.setattr(letter_rows, "PORTION_BYTES_MAX", 10_000)
    sizes = [4_000, 4_000, 4_000, 30_000, 10, 9_000]
    letters = []
    for number, size in enumerate(sizes):
        [delivery] = rabbit_world.deliver([b"x" * size])
        delivery.headers = {dead_letter.KIND: Kind.DELAYED.value, dead_letter.LETTER_ID: str(UUID(int=number + 1))}
        letters.append(read(rabbit_world.subscription, delivery))
    async with database.transaction() as connection:
        uow = UnitOfWork(connection, "dead_letter", rabbit_world.telemetry.spans)
        await handlers.receive(uow, letters, policy, alert_interval_s=60)
    portions: list[list[int]] = []

    async def publish(_subscription: Subscription, delivery: Delivery, _headers: dict[str, str]) -> None:
        portions[-1].append(len(delivery.body))

    more = True
    while more:
        portions.append([])
        async with database.transaction() as connection:
            uow = UnitOfWork(connection, "dead_letter", rabbit_world.telemetry.spans)
            more = (await handlers.give_back_due(uow, publish, policy, 60, delayed_only=False)).more
            await uow.flush()
    assert sorted(size for portion in portions for size in portion) == sorted(sizes)
    assert [portion for portion in portions if sum(portion) > 10_000] == [[30_000]]
    assert portions[-1] == []
