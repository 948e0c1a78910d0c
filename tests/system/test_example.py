"""The example beside the real services: what the README shows is run here as it stands."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import asyncpg
import msgspec
import pytest
from uuid_utils.compat import uuid7

from deploy.paths import REPOSITORY
from shared.broker.base import Broker, Delivery, Message, Settlement, Subscription
from shared.envelope import Envelope
from tests.system.running_system import RunningSystem, eventually

GOLDEN = REPOSITORY / "tests" / "unit" / "golden" / "order.paid.1.json"


class Receipts:
    """The example, running beside the services: its rows, and what it publishes."""

    def __init__(self, dsn: str, broker: Broker) -> None:
        self._dsn = dsn
        self.broker = broker
        self.issued: list[Envelope] = []

    async def rows(self, order_id: str) -> list[int]:
        """The amounts of the receipts of an order."""
        connection = await asyncpg.connect(self._dsn)
        try:
            found = await connection.fetch("select amount from receipt where order_id = $1", UUID(order_id))
            return [row["amount"] for row in found]
        finally:
            await connection.close()

    def issued_for(self, order_id: str) -> list[Envelope]:
        return [event for event in self.issued if event.data["order_id"] == order_id]

    async def listen(self, deliveries: Sequence[Delivery]) -> list[Settlement]:
        self.issued += [Envelope.decode(delivery.body) for delivery in deliveries]
        return [Settlement.ACK] * len(deliveries)


@pytest.fixture
async def receipts(system: RunningSystem) -> AsyncIterator[Receipts]:
    async with running(system) as receipts:
        yield receipts


@asynccontextmanager
async def running(system: RunningSystem) -> AsyncIterator[Receipts]:
    """The example's process, and somebody who hears what it publishes; both gone at the end."""
    runtime, database = system.runtime, f"{system.broker_name}_receipts"
    await asyncio.to_thread(runtime.ensure_databases, [database])
    dsn = runtime.dsn(database)
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "shared.migrate", "receipts", "--within", "examples"],
        env={**os.environ, "TANDEM_POSTGRES_DSN": dsn}, cwd=REPOSITORY, check=True, timeout=60,
    )  # fmt: skip
    environment = {"TANDEM_ROLES": "consumer,relay", "TANDEM_POSTGRES_DSN": dsn}
    wanted = Subscription(channel="receipt", subscriber="tests", types=frozenset({"receipt.issued"}))
    async with AsyncExitStack() as stack:
        if system.broker_name == "rabbit":  # or they would fill with what later tests publish
            for queue in ("receipts.order", wanted.queue):
                stack.push_async_callback(asyncio.to_thread, runtime.rabbitmqctl, "delete_queue", queue)
        broker = await stack.enter_async_context(system.broker())
        receipts = Receipts(dsn, broker)
        await broker.declare(("order", "receipt"), (wanted,))
        await broker.subscribe(wanted, receipts.listen)
        name = await asyncio.to_thread(
            runtime.processes.start_extra,
            system.process("order-consumer"), "receipts", environment, module=["examples.receipts.app"],
        )  # fmt: skip
        stack.push_async_callback(asyncio.to_thread, runtime.processes.stop_extra, name)
        yield receipts


async def test_a_paid_order_gets_one_receipt_and_the_receipt_is_announced_once(
    system: RunningSystem, receipts: Receipts
) -> None:
    user = await system.register()
    order = await system.order(user)
    assert await receipts.rows(order) == []
    await system.insist("order", f"/orders/{order}/pay")

    async def announced() -> list[Envelope]:
        return receipts.issued_for(order)

    [issued, *_] = await eventually(announced, "the receipt is announced")
    assert await receipts.rows(order) == [2500]
    assert issued.source == "/services/receipts"
    assert issued.data == {"order_id": order, "amount": 2500}

    # The same event comes again, twice, as brokers and relays may have it; then one of another order behind it.
    again = msgspec.structs.replace(
        Envelope.decode(GOLDEN.read_bytes()), id=issued.causationid, subject=order, partitionkey=order,
        data={"order_id": order, "user_id": user, "currency": "EUR", "total_amount": 2500, "version": 2},
    )  # fmt: skip
    other = str(uuid7())
    behind = msgspec.structs.replace(again, id=str(uuid7()), data={**again.data, "order_id": other})
    messages = [Message("order", "order.paid", order, event.encode()) for event in (again, again, behind)]
    assert await receipts.broker.publish(messages) == []

    async def other_announced() -> list[Envelope]:
        return receipts.issued_for(other)

    await eventually(other_announced, "the receipt behind is announced")
    assert await receipts.rows(order) == [2500]
    assert len(receipts.issued_for(order)) == 1
    assert await receipts.rows(other) == [2500]
