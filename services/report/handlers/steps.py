"""The five steps of a sales report, all leased: what is long keeps no consumer, and what computes has a child.

What one step hands to the next is its result, or a row: nothing is kept in a process, so a report goes on at the
step where its worker was killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Final
from uuid import UUID

from services.report import domain, store
from services.report.domain import Charts, Sales
from services.report.events import ReportStepReady
from shared.errors import TransientError
from shared.jobs import JobContext, Jobs, Reject, Retry, Signature, chain, job
from shared.jobs.archive import HISTORY, Archive
from shared.outside.mail import Attachment, Mail, Mailer, message_id_of

QUEUE: Final = "reports"
PDF_BYTES_MAX: Final = 8 * 2**20
"""A PDF is a row, not an object in a store, so there is a bound."""
_PATIENT: Final = Retry(8, initial_s=1.0, max_s=600.0)
"""For what others have to do with: a mail server that is away, a user of whom nothing is heard yet."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the PDF is made of."""

    sales: Sales
    charts: Charts


@dataclass(frozen=True, slots=True)
class Made:
    """A PDF that stands in the report's row."""

    pages: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of a report; `mailed` is False where there is no mail server, or nobody to send it to."""

    pages: int
    bytes: int
    sha256: str
    mailed: bool


@job(leased=True, queue=QUEUE)
async def fetch(start: date, end: date, ctx: JobContext) -> int:
    """Write down what the orders of the period come to, by day, currency and state; how many rows that is.

    Raises `TooManyRowsError`.
    """
    async with ctx.reading() as connection:
        days = await store.fetch_days(connection, start, end)
    ctx.tell(store.INSERT_REPORT, {"job_id": ctx.job_id, "start_date": start, "end_date": end})
    for day in days:
        ctx.tell(
            store.INSERT_DAY,
            {
                "job_id": ctx.job_id,
                "day": day.day,
                "currency": day.currency,
                "state": day.state,
                "orders": day.orders,
                "amount": day.amount,
            },
        )
    return len(days)


@job(leased=True, queue=QUEUE)
async def aggregate(_rows: int, start: date, end: date, ctx: JobContext) -> Sales:
    """Add up what was fetched."""
    async with ctx.reading() as connection:
        days = await store.list_days(connection, ctx.job_id)
    return domain.aggregate(start, end, days)


@job(process=True, queue=QUEUE)
def charts(sales: Sales) -> Drawn:
    """Lay out the charts."""
    return Drawn(sales, domain.charts_of(sales))


@job(process=True, queue=QUEUE)
def pdf(drawn: Drawn, ctx: JobContext) -> Made:
    """Draw the PDF; a repetition makes the same bytes. Raises `Reject` for one that is too large to keep."""
    from services.report.handlers import paper  # in the child alone: it is no small import

    content, pages = paper.draw(drawn.sales, drawn.charts, ctx.report)
    if len(content) > PDF_BYTES_MAX:
        raise Reject(f"the PDF has {len(content):,} bytes, over the {PDF_BYTES_MAX:,} that are kept")
    made = Made(pages, len(content), sha256(content).hexdigest())
    ctx.tell(
        store.RECORD_PDF,
        {"of_job": ctx.job_id, "content": content, "digest": made.sha256, "page_count": pages},
    )
    return made


@job(leased=True, queue="io", retries=_PATIENT)
async def mail(made: Made, user_id: UUID | None, start: date, end: date, ctx: JobContext) -> Sent:
    """Mail the PDF to the user, or where the daily report goes.

    At-least-once, as all mail: killed between the server's answer and the commit behind it, the step runs again
    and sends the same file under the same Message-ID.
    Raises `MailRefusedError`, and `TransientError` for what may pass.
    """
    settings = ctx.parts.settings
    not_mailed = Sent(made.pages, made.bytes, made.sha256, mailed=False)
    if not settings.smtp_url:
        return not_mailed
    async with ctx.reading() as connection:
        if user_id is None:
            to = store.Recipient(settings.report_mail_to, "") if settings.report_mail_to else None
        else:
            to = await store.find_recipient(connection, user_id)
        content = await store.read_pdf(connection, ctx.job_id)
    if to is None and user_id is None:
        return not_mailed
    if to is None:
        raise TransientError(f"the address of user {user_id} is not known, or not yet")
    if content is None:
        raise Reject("the PDF is not kept any more")
    mailer = Mailer(settings, ctx.parts.circuit_breakers.named("smtp"))
    await mailer.send(
        Mail(
            message_id=message_id_of(f"/services/report {ctx.idempotency_key}", mailer.sender),
            address=to.email,
            name=to.name,
            subject=f"매출 보고서 · Sales report {start} ~ {end}",
            text=f"{start} ~ {end}\n\n매출 보고서를 첨부합니다.\nThe sales report is attached.\n\n{ctx.job_id}\n",
            attachments=(Attachment(name=file_name(start, end), media_type="application/pdf", content=content),),
        )
    )
    ctx.tell(store.RECORD_MAIL, {"of_job": ctx.job_id})
    return Sent(made.pages, made.bytes, made.sha256, mailed=True)


def file_name(start: date, end: date) -> str:
    """What the PDF of a period is called."""
    return f"sales-{start}-{end}.pdf"


def sales_report(start: date, end: date, user_id: UUID | None) -> Signature:
    """The job that makes the report of a period and mails it."""
    return chain(
        fetch.s(start, end),
        aggregate.s(start, end),
        charts.s(),
        pdf.s(),
        mail.s(user_id, start, end),
    )


ARCHIVE = Archive("report", HISTORY)
JOBS = Jobs(ReportStepReady, fetch, aggregate, charts, pdf, mail, archive=ARCHIVE)
