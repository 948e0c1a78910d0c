"""The tables of orders, recipients and reports, and their statements. Nothing here commits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.report.domain import DaySales
from shared.errors import PermanentError

DAY_ROWS_MAX: Final = 50_000
PDFS_KEPT_MAX: Final = 1_000
"""Of more, the oldest are deleted; their reports stay."""

metadata = MetaData()

# `placed_on` is null where a later event of the order came first.
report_order = Table(
    "report_order",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("currency", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("placed_on", Date),
    Index("ix_report_order_placed_on", "placed_on"),
)

recipient = Table(
    "recipient",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
)

# A job whose orders are fetched. It is deleted after its job.
report = Table(
    "report",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("start_date", Date, nullable=False),
    Column("end_date", Date, nullable=False),
    Column("pdf", LargeBinary),
    Column("sha256", Text),
    Column("pages", Integer),
    Column("made_at", DateTime(timezone=True)),
    Column("mailed_at", DateTime(timezone=True)),
)

report_day = Table(
    "report_day",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("state", Text, primary_key=True),
    Column("orders", BigInteger, nullable=False),
    Column("amount", Numeric, nullable=False),
)


class TooManyRowsError(PermanentError):
    """A period has more days and currencies than a report tells of."""


# -- events

# Events may arrive twice and in any order: the newest says the state, the first the day.
_order = postgresql.insert(report_order)
_is_newer = _order.excluded.version > report_order.c.version
RECORD_ORDER = _order.on_conflict_do_update(
    index_elements=[report_order.c.order_id],
    set_={
        **{
            name: case((_is_newer, _order.excluded[name]), else_=report_order.c[name])
            for name in ("currency", "amount", "state")
        },
        "version": func.greatest(report_order.c.version, _order.excluded.version),
        "placed_on": func.coalesce(report_order.c.placed_on, _order.excluded.placed_on),
    },
)
_recipient = postgresql.insert(recipient)
RECORD_RECIPIENT = _recipient.on_conflict_do_update(
    index_elements=[recipient.c.user_id],
    set_={name: _recipient.excluded[name] for name in ("email", "name", "version")},
    where=recipient.c.version < _recipient.excluded.version,
)


@dataclass(frozen=True, slots=True)
class Recipient:
    """Where a user's mail goes, and how the user is addressed."""

    email: str
    name: str


async def find_recipient(connection: AsyncConnection, user_id: UUID) -> Recipient | None:
    query = select(recipient.c.email, recipient.c.name).where(recipient.c.user_id == user_id)
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else Recipient(**row)


# -- reports

INSERT_REPORT = insert(report)
INSERT_DAY = insert(report_day)
RECORD_PDF = (
    update(report)
    .where(report.c.job_id == bindparam("of_job"))
    .values(
        pdf=bindparam("content"), sha256=bindparam("digest"), pages=bindparam("page_count"), made_at=func.now()
    )
)
RECORD_MAIL = update(report).where(report.c.job_id == bindparam("of_job")).values(mailed_at=func.now())

_COUNT_OPEN = text("select count(*) from job where state in ('waiting', 'scheduled', 'running')")
_LOCK_OPEN = text("select pg_advisory_xact_lock(hashtext('report.open'))")
_DELETE_ORPHANS = text(
    """
    with gone as (
      select r.job_id from report r where not exists (select from job j where j.id = r.job_id)
       order by r.job_id limit :count_max for update skip locked),
    days as (delete from report_day where job_id in (select job_id from gone)),
    reports as (delete from report where job_id in (select job_id from gone))
    select count(*) from gone
    """
)
_DELETE_PDFS = text(
    """
    update report set pdf = null where job_id = any (array(
      select job_id from report where pdf is not null order by made_at desc offset :kept_max limit :count_max))
    """
)


async def fetch_days(connection: AsyncConnection, start: date, end: date) -> list[DaySales]:
    """The orders placed from `start` to `end`, by day, currency and state. Raises `TooManyRowsError`."""
    of = report_order.c
    query = (
        select(
            of.placed_on.label("day"),
            of.currency,
            of.state,
            func.count().label("orders"),
            func.sum(of.amount).label("amount"),
        )
        .where(of.placed_on.between(start, end))
        .group_by(of.placed_on, of.currency, of.state)
        .order_by(of.placed_on, of.currency, of.state)
        .limit(DAY_ROWS_MAX + 1)
    )
    rows = (await connection.execute(query)).mappings().all()
    if len(rows) > DAY_ROWS_MAX:
        raise TooManyRowsError(f"there are over {DAY_ROWS_MAX:,} days and currencies in this period")
    return [DaySales(**{**row, "amount": int(row["amount"])}) for row in rows]


async def list_days(connection: AsyncConnection, job_id: UUID) -> list[DaySales]:
    """What was fetched for a report."""
    of = report_day.c
    query = select(of.day, of.currency, of.state, of.orders, of.amount).where(of.job_id == job_id).order_by(of.day)
    rows = (await connection.execute(query)).mappings()
    return [DaySales(**{**row, "amount": int(row["amount"])}) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report's row without its PDF, which is there once it has been made and until it is deleted."""

    start_date: date
    end_date: date
    pages: int | None
    bytes: int | None
    sha256: str | None
    made_at: datetime | None
    mailed_at: datetime | None


async def find_report(connection: AsyncConnection, job_id: UUID) -> Report | None:
    """A report, once its orders are fetched."""
    query = select(
        report.c.start_date,
        report.c.end_date,
        report.c.pages,
        func.octet_length(report.c.pdf).label("bytes"),
        report.c.sha256,
        report.c.made_at,
        report.c.mailed_at,
    ).where(report.c.job_id == job_id)
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else Report(**row)


async def read_pdf(connection: AsyncConnection, job_id: UUID) -> bytes | None:
    """The PDF of a report, if there is one, or still one."""
    content: bytes | None = await connection.scalar(select(report.c.pdf).where(report.c.job_id == job_id))
    return content


async def count_open(connection: AsyncConnection) -> int:
    """How many reports have not ended; nobody else may count until this transaction ends."""
    await connection.execute(_LOCK_OPEN)
    count: int = (await connection.execute(_COUNT_OPEN)).scalar_one()
    return count


async def prune(connection: AsyncConnection, _older_than_s: float, count_max: int) -> int:
    """Delete reports whose jobs are deleted, and the oldest PDFs of too many; return how many went."""
    orphans: int = (await connection.execute(_DELETE_ORPHANS, {"count_max": count_max})).scalar_one()
    told = {"kept_max": PDFS_KEPT_MAX, "count_max": count_max}
    pdfs = (await connection.execute(_DELETE_PDFS, told)).rowcount
    return max(orphans, pdfs)
