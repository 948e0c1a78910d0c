"""A sales report, as a user of the whole system sees it, though its worker is killed in the middle."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.message import EmailMessage
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest
from pypdf import PdfReader

from services.report.domain import ZONE
from tests.system.running_system import DEADLINE_S, RunningSystem, eventually
from tests.system.test_mail import NewMails

PATH = "/v1/reports/sales"
KILLED = {"TANDEM_FAILPOINTS": "worker.before_commit=kill@4"}
"""The fourth step, the PDF, is drawn and written; the transaction is not committed."""


async def orders_of(system: RunningSystem, user: str) -> None:
    """Three orders, one of them paid and one cancelled, of which the report service has heard."""
    orders = [await system.order(user) for _ in range(3)]
    await system.insist("order", f"/orders/{orders[0]}/pay")
    await system.insist("order", f"/orders/{orders[1]}/cancel")

    async def heard() -> bool:
        query = "select state from report_order where order_id::text = any($1) and placed_on is not null"
        states = [row["state"] for row in await system.rows("report", query, orders)]
        return sorted(states) == ["cancelled", "paid", "placed"]

    await eventually(heard, "the report service has heard of the orders")


@pytest.mark.timeout(600)
async def test_a_report_is_made_and_mailed_once_though_its_worker_is_killed_in_the_middle(
    system: RunningSystem,
) -> None:
    mails = NewMails(system)
    address = f"ada-{uuid4().hex[:8]}@example.org"
    user = str((await system.insist("user", "/users", {"email": address, "name": "에이다 Ada"}))["id"])
    await orders_of(system, user)
    today = str(datetime.now(UTC).astimezone(ZONE).date())
    settings = {**KILLED, **system.mail}
    async with system.in_place_of("report", settings) as process:
        body = {"start_date": "2026-01-01", "end_date": today, "user_id": user}
        asked = await system.post("report", PATH, body)
        assert asked.status_code == 202, asked.text
        path = asked.headers["location"]

        async def is_killed() -> bool:
            return not await asyncio.to_thread(system.runtime.processes.pids, process)

        await eventually(is_killed, "the worker is killed", 2 * DEADLINE_S, interval_s=0.5)
        await asyncio.to_thread(system.runtime.processes.start, process)
        told = await completed(system, path)

    steps_done = [one["progress"] // 20 for one in told]
    assert (steps_done[0] >= 3, steps_done[-1], steps_done) == (True, 5, sorted(steps_done))
    steps = (await system.get("report", f"/jobs/{told[-1]['task_id']}")).json()["steps"]
    assert (steps[0]["attempt"], steps[3]["attempt"] > 1) == (1, True), "it went on where it was"

    pdf = await system.get("report", told[-1]["result"]["pdf_url"])
    words = "\n".join(page.extract_text() for page in PdfReader(BytesIO(pdf.content)).pages)
    assert "매출 보고서" in words
    assert "EUR" in words

    async def arrived() -> list[EmailMessage]:
        return await mails.about(told[-1]["task_id"])

    [mail] = await eventually(arrived, "the mail arrives", interval_s=0.5)
    assert mail["To"].addresses[0].addr_spec == address
    [attached] = mail.iter_attachments()
    assert attached.get_content() == pdf.content


async def completed(system: RunningSystem, path: str) -> list[Any]:
    """What is told of a report, again and again, until it is completed."""
    told: list[Any] = []

    async def is_complete() -> bool:
        told.append((await system.get("report", path)).json())
        return bool(told[-1]["status"] == "completed")

    await eventually(is_complete, "the report is completed", 2 * DEADLINE_S)
    return told
