"""The report service with its own steps at work, in children too: asked for, watched, mailed, refused, stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pypdf import PdfReader
from sqlalchemy import text
from uuid_utils.compat import uuid7

from deploy.native import Runtime
from services.report import store
from services.report.app import SERVICE
from services.report.domain import ZONE
from services.report.handlers import reports
from services.report.handlers.steps import sales_report
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings
from tests.integration.databases import migrated_database
from tests.integration.smtp import Server, smtp_server
from tests.integration.world import eventually

PATH = "/v1/reports/sales"
ADA = UUID("0198c0de-0000-7000-8000-00000000000a")
MORNING = date(2026, 11, 2)
DAILY_TO = "sales@tandem.example"
DEADLINE_S = 150.0
"""Bounds a wait: the first report starts the process that forks children."""


class Reports:
    """The whole service in one process, its mail server, and a client."""

    def __init__(self, process: Process, http: httpx.AsyncClient, smtp: Server) -> None:
        self.process = process
        self.http = http
        self.smtp = smtp

    async def ask(self, start: object, end: object, user: object = ADA, key: str = "") -> httpx.Response:
        body = {"start_date": str(start), "end_date": str(end), "user_id": str(user)}
        return await self.http.post(PATH, json=body, headers={"Idempotency-Key": key} if key else {})

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def ended(self, path: str) -> Any:
        """A report as it stands once it has ended."""

        async def end() -> Any:
            told = await self.get(path)
            return told if told["status"] not in {"pending", "in_progress"} else None

        return await eventually(end, f"{path} ends", DEADLINE_S)

    async def execute(self, statement: str, **parameters: Any) -> None:
        async with self.process.parts.database.transaction() as connection:
            await connection.execute(text(statement), parameters)

    async def order(self, day: date, amount: int, *states: str, currency: str = "EUR") -> None:
        """An order whose events come in this order, `placed` being its first."""
        order_id = uuid7()
        versions = {"placed": 1, "paid": 2, "cancelled": 2}
        async with self.process.parts.units.begin() as uow:
            for state in states:
                uow.tell(
                    store.RECORD_ORDER,
                    {
                        "order_id": order_id,
                        "currency": currency,
                        "amount": amount,
                        "state": state,
                        "version": versions[state],
                        "placed_on": day if state == "placed" else None,
                    },
                )


@pytest.fixture(scope="module")
async def service(servers: Runtime) -> AsyncIterator[Reports]:
    async with smtp_server() as smtp, AsyncExitStack() as stack:
        settings = Settings(
            broker="rabbit",
            http_port=1,
            postgres_dsn=await migrated_database(servers, "report"),
            redis_url=servers.server_urls()["redis"],
            rabbit_url=servers.server_urls()["rabbit"],
            smtp_url=smtp.url,
            report_mail_to=DAILY_TO,
        )
        process = Process(SERVICE, build_parts("report", settings))
        app = application_of(process)
        await stack.enter_async_context(process.lifespan(app))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=60)
        made = Reports(process, await stack.enter_async_context(http), smtp)
        async with process.parts.units.begin() as uow:
            row = {"user_id": ADA, "email": "ada@example.org", "name": "에이다 Ada", "version": 1}
            uow.tell(store.RECORD_RECIPIENT, row)
        yield made


async def test_a_report_is_made_in_five_steps_and_its_pdf_is_mailed(service: Reports) -> None:
    await service.order(MORNING, 12_50, "placed", "paid")
    await service.order(MORNING, 20_00, "paid", "placed", "placed")
    await service.order(MORNING + timedelta(days=1), 99_99, "placed", "cancelled")
    await service.order(MORNING - timedelta(days=1), 77_77, "placed")
    await service.order(MORNING, 45_000, "placed", currency="KRW")
    asked = await service.ask(MORNING, MORNING + timedelta(days=1), key="k1")
    task = asked.json()["task_id"]
    assert (asked.status_code, asked.headers["location"]) == (202, f"{PATH}/{task}")
    assert asked.json()["status"] == "pending"
    again = await service.ask(MORNING, MORNING + timedelta(days=1), key="k1")
    assert again.json() == asked.json()

    ended = await service.ended(asked.headers["location"])
    assert (ended["status"], ended["progress"], ended["current"], ended["total"]) == ("completed", 100, 5, 5)
    tree = await service.get(f"/jobs/{task}")
    assert [step["handler"] for step in tree["steps"]] == ["fetch", "aggregate", "charts", "pdf", "mail"]

    pdf = await service.http.get(ended["result"]["pdf_url"])
    assert (pdf.status_code, pdf.headers["content-type"]) == (200, "application/pdf")
    assert pdf.headers["content-disposition"] == "attachment; filename=sales-2026-11-02-2026-11-03.pdf"
    words = "\n".join(page.extract_text() for page in PdfReader(BytesIO(pdf.content)).pages)
    for told in ("매출 보고서", "32.50", "45,000", "2026-11-02"):
        assert told in words
    assert "77.77" not in words

    [mail] = service.smtp.mails
    assert mail["To"].addresses[0].addr_spec == "ada@example.org"
    assert "매출 보고서" in mail["Subject"]
    [attached] = mail.iter_attachments()
    assert (attached.get_content_type(), attached.get_filename()) == (
        "application/pdf", "sales-2026-11-02-2026-11-03.pdf"
    )  # fmt: skip
    assert attached.get_content() == pdf.content


async def test_the_daily_report_is_of_the_day_before_and_goes_to_its_address(service: Reports) -> None:
    [schedule] = (await service.get("/schedules"))["items"]
    assert (schedule["name"], schedule["cron"], schedule["time_zone"]) == (
        "daily-sales-report", "0 9 * * *", "Asia/Seoul"
    )  # fmt: skip
    before = len(service.smtp.mails)
    span = {"first": "2026-11-03T09:00:00+09:00", "last": "2026-11-03T09:00:00+09:00"}
    answer = await service.http.post("/schedules/daily-sales-report/backfill", json=span)
    [task] = answer.json()["jobs"]

    async def submitted() -> bool:
        return (await service.http.get(f"{PATH}/{task}")).status_code == 200

    await eventually(submitted, "the scheduler submits it")
    ended = await service.ended(f"{PATH}/{task}")
    assert (ended["status"], ended["result"]["start_date"], ended["result"]["end_date"]) == (
        "completed", "2026-11-02", "2026-11-02"
    )  # fmt: skip
    [mail] = service.smtp.mails[before:]
    assert mail["To"].addresses[0].addr_spec == DAILY_TO


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-11-03", "2026-11-02"),
        ("2025-11-01", "2026-11-02"),
        ("1999-12-31", "2000-01-01"),
        ("2026-02-30", "2026-03-01"),
        ("2026-11-02T00:00:00", "2026-11-03"),
        ("1790000000", "1790000001"),
        ("", ""),
    ],
)
async def test_wrong_dates_are_refused_at_once_and_no_job_is_made(service: Reports, start: str, end: str) -> None:
    known = len((await service.get("/jobs"))["items"])
    assert (await service.ask(start, end)).status_code == 422
    assert len((await service.get("/jobs"))["items"]) == known


async def test_a_day_to_come_is_refused_with_the_field_that_is_wrong(service: Reports) -> None:
    tomorrow = datetime.now(UTC).astimezone(ZONE).date() + timedelta(days=2)
    answer = await service.ask(tomorrow, tomorrow)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == ["body", "start_date"]


async def test_an_unknown_report_is_not_found(service: Reports) -> None:
    for path in ("", "/pdf"):
        assert (await service.get(f"{PATH}/{uuid4()}{path}", 404))["type"] == "urn:tandem:problem:job-not-found"


async def test_a_report_for_nobody_known_waits_has_its_pdf_and_can_be_stopped(service: Reports) -> None:
    path = (await service.ask(MORNING, MORNING, uuid4())).headers["location"]

    async def tried() -> Any:
        told = await service.get(f"/jobs/{path.rpartition('/')[2]}")
        return [attempt["error"] for attempt in told["steps"][-1]["failed_attempts"] if attempt["error"]]

    [error, *_] = await eventually(tried, "the mail is tried", DEADLINE_S)
    assert error["type"] == "TransientError"
    told = await service.get(path)
    assert (told["status"], told["current"], told["message"]) == ("in_progress", 5, "Sending the mail")
    assert (await service.http.get(f"{path}/pdf")).status_code == 200
    assert (await service.http.post(f"{path}/cancel")).status_code == 200
    ended = await service.ended(path)
    assert (ended["status"], ended["result"]["mailed_at"]) == ("cancelled", None)


async def test_a_pdf_is_not_there_yet_then_there_and_in_the_end_deleted(service: Reports) -> None:
    async with service.process.parts.units.begin() as uow:
        waiting = await uow.submit(sales_report(MORNING, MORNING, None), delay_s=3_600, kind="sales-report")
    path = f"{PATH}/{waiting.job_id}"
    answer = await service.http.get(f"{path}/pdf")
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["status"]) == (202, "1", "pending")
    await service.http.post(f"{path}/cancel")
    assert (await service.get(f"{path}/pdf", 409))["type"] == "urn:tandem:problem:job-cancelled"

    made = (await service.ask(MORNING, MORNING)).headers["location"]
    await service.ended(made)
    assert (await service.http.post(f"{made}/cancel")).status_code == 409
    await service.execute("update report set pdf = null where job_id = :id", id=UUID(made.rpartition("/")[2]))
    assert (await service.get(f"{made}/pdf", 410))["type"] == "urn:tandem:problem:pdf-deleted"
    assert (await service.get(made))["result"]["pdf_url"] is None


async def test_a_report_is_deleted_behind_its_job_and_others_stay(service: Reports) -> None:
    gone, kept = [(await service.ask(MORNING, MORNING)).headers["location"] for _ in range(2)]
    for path in (gone, kept):
        await service.ended(path)
    await service.execute("delete from job where id = :id", id=UUID(gone.rpartition("/")[2]))
    async with service.process.parts.database.transaction() as connection:
        assert await store.prune(connection, 0.0, 100) == 1
        assert await store.find_report(connection, UUID(gone.rpartition("/")[2])) is None
        assert await store.list_days(connection, UUID(gone.rpartition("/")[2])) == []
        assert await store.find_report(connection, UUID(kept.rpartition("/")[2])) is not None


async def test_so_many_open_reports_are_taken_and_no_more(
    service: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "OPEN_MAX", 0)
    answer = await service.ask(MORNING, MORNING)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
