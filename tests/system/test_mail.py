"""Mail, as a user of the whole system sees it: one per event, also when the mail server was away meanwhile.

These and those of dead letters send mail, and come before all others: a mail costs more than all else about an
order, and a consumer that is told to send any begins with the first event that there ever was.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from uuid import uuid4

import pytest

from shared.envelope import Envelope
from shared.outside.mail import message_id
from shared.settings import Settings
from tests.system.running_system import RunningSystem, eventually

ORDERS = 20
SENDER = Settings.model_fields["mail_from"].default


@pytest.fixture(autouse=True, scope="module")
async def mail_is_sent(system: RunningSystem) -> AsyncIterator[None]:
    async with system.in_place_of("notification-consumer", system.mail):
        yield


class NewMails:
    """What the development mail server has taken since."""

    def __init__(self, system: RunningSystem) -> None:
        self._place = system.runtime.addresses.maildir / "new"
        self._known = set(self._place.iterdir())
        self._read: list[tuple[EmailMessage, str]] = []

    async def about(self, order: str) -> list[EmailMessage]:
        return [message for message, text in await self._all() if order in text]

    async def times(self, orders: Sequence[str]) -> Counter[str]:
        """How many mails each of the orders has."""
        return Counter(order for _, text in await self._all() for order in orders if order in text)

    async def _all(self) -> list[tuple[EmailMessage, str]]:
        await asyncio.to_thread(self._read_on)
        return self._read

    def _read_on(self) -> None:
        come = set(self._place.iterdir()) - self._known
        self._known |= come
        self._read += [read(path) for path in come]


def read(path: Path) -> tuple[EmailMessage, str]:
    """A mail, and its text."""
    message = message_from_bytes(path.read_bytes(), policy=default)
    assert isinstance(message, EmailMessage)
    body = message.get_body(("plain",))
    assert body is not None
    return message, str(body.get_content())


async def test_an_order_leads_to_a_mail_that_tells_of_its_event(system: RunningSystem) -> None:
    mails = NewMails(system)
    address = f"ada-{uuid4().hex[:8]}@example.org"
    user = await system.insist("user", "/users", {"email": address, "name": "Ada <Lovelace>"})
    order = await system.order(str(user["id"]))

    async def arrived() -> list[EmailMessage]:
        return await mails.about(order)

    [mail] = await eventually(arrived, "a mail about the order", interval_s=0.5)
    assert mail["To"].addresses[0].addr_spec == address
    assert mail["Subject"] == "We have your order"
    told = (await system.get("notification", "/notifications", order_id=order)).json()["items"]
    [placed] = [item for item in told if item["event_type"] == "order.placed"]
    event = Envelope(source=placed["event_source"], id=placed["event_id"], type="order.placed", data=None)
    assert mail["Message-ID"] == message_id(event, SENDER)
    html = mail.get_body(("html",))
    assert html is not None
    assert "Ada &lt;Lovelace&gt;" in html.get_content()


async def ready_though_degraded(system: RunningSystem) -> bool:
    url = system.runtime.addresses.process_urls(system.broker_name)[system.process("notification-consumer")]
    answer = await system.http.get(f"{url}/health/ready")
    return answer.status_code == 200 and "smtp" in answer.json()["degraded"]


@pytest.mark.timeout(400)
async def test_while_the_mail_server_is_away_mails_wait_and_all_arrive_when_it_is_back(
    system: RunningSystem,
) -> None:
    mails = NewMails(system)
    user = await system.register("Grace")
    await asyncio.to_thread(system.runtime.processes.stop, "mail")
    try:
        orders = [await system.order(user) for _ in range(ORDERS)]

        async def degraded() -> bool:
            return await ready_though_degraded(system)

        # Not at the first look: on a loaded machine a broker may be late with its answer once.
        await eventually(degraded, "the breaker is open, and the process is ready all the same")
        assert len(await system.notifications_of(orders)) <= ORDERS, "notifications go on"
    finally:
        await asyncio.to_thread(system.runtime.processes.start, "mail")

    # Of these orders only: a process that another test killed between sending and recording may send a mail twice.
    async def all_arrived() -> bool:
        return len(await mails.times(orders)) == ORDERS

    await eventually(all_arrived, "a mail about each order", deadline_s=300, interval_s=1.0)
    assert set((await mails.times(orders)).values()) == {1}, "a mail that was sent is not sent again"
