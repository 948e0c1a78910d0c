"""What a sales report says, how it is drawn, and how far it is. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Final, Literal
from zoneinfo import ZoneInfo

from shared.money import decimals_of
from shared.money import format_amount as number_of

ZONE: Final = ZoneInfo("Asia/Seoul")
"""In which a day begins and ends."""
DAYS_MAX: Final = 366
FIRST_DAY: Final = date(2000, 1, 1)
DAILY_MAX: Final = 92
"""A longer period is told by the week, so that neither a chart nor a step's result grows without bound."""
CURRENCIES_MAX: Final = 12
"""Those with the most orders; of the others, the report says how many there are."""
LINES_MAX: Final = 6
AMOUNT_CHARTS_MAX: Final = 4
LABELS_MAX: Final = 8
TICKS_MAX: Final = 6

OrderState = Literal["placed", "paid", "cancelled"]


# -- dates


def day_of(time: str | None, now: datetime) -> date:
    """The day of an event's time, in the report's zone; of an event that has none to be read, today."""
    try:
        moment = now if time is None else datetime.fromisoformat(time)
    except ValueError:
        moment = now
    return (now if moment.tzinfo is None else moment).astimezone(ZONE).date()


def problem_of(start: date, end: date, today: date) -> tuple[str, str] | None:
    """Which of a period's dates is wrong, and why; None for a good one."""
    if end < start:
        return "end_date", "end_date must not be before start_date"
    if (end - start).days >= DAYS_MAX:
        return "end_date", f"a report covers at most {DAYS_MAX} days"
    if start < FIRST_DAY:
        return "start_date", f"start_date must not be before {FIRST_DAY}"
    if start > today:
        return "start_date", "start_date must not be in the future"
    return None


# -- sales


@dataclass(frozen=True, slots=True)
class DaySales:
    """The orders of one day, currency and state. `amount` is in the currency's minor unit, here and below."""

    day: date
    currency: str
    state: OrderState
    orders: int
    amount: int


@dataclass(frozen=True, slots=True)
class CurrencySales:
    """The orders of one currency, and of each bucket of days. Sales are what was not cancelled."""

    currency: str
    orders: int
    paid_orders: int
    cancelled_orders: int
    sales: int
    paid_sales: int
    orders_by_bucket: tuple[int, ...]
    sales_by_bucket: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sales:
    """What the orders of a period come to; `buckets` are the first days of spans of `bucket_days` days each."""

    start: date
    end: date
    bucket_days: int
    buckets: tuple[date, ...]
    currencies: tuple[CurrencySales, ...]
    currencies_left_out: int

    @property
    def orders(self) -> int:
        return sum(currency.orders for currency in self.currencies)


def aggregate(start: date, end: date, rows: Iterable[DaySales]) -> Sales:
    """Add up the rows of a period, currencies with the most orders first."""
    bucket_days = 1 if (end - start).days < DAILY_MAX else 7
    buckets = tuple(start + timedelta(days=days) for days in range(0, (end - start).days + 1, bucket_days))
    by_currency = groupby(sorted(rows, key=lambda row: row.currency), key=lambda row: row.currency)
    found = [
        _currency_sales(currency, list(own), start, bucket_days, len(buckets)) for currency, own in by_currency
    ]
    found.sort(key=lambda sales: (-sales.orders, sales.currency))
    listed = tuple(found[:CURRENCIES_MAX])
    return Sales(start, end, bucket_days, buckets, listed, len(found) - len(listed))


def _currency_sales(
    currency: str, rows: Sequence[DaySales], start: date, bucket_days: int, bucket_count: int
) -> CurrencySales:
    orders, sales = [0] * bucket_count, [0] * bucket_count
    counts: dict[OrderState, int] = {"placed": 0, "paid": 0, "cancelled": 0}
    amounts: dict[OrderState, int] = {"placed": 0, "paid": 0, "cancelled": 0}
    for row in rows:
        bucket = (row.day - start).days // bucket_days
        counts[row.state] += row.orders
        amounts[row.state] += row.amount
        orders[bucket] += row.orders
        sales[bucket] += 0 if row.state == "cancelled" else row.amount
    return CurrencySales(
        currency=currency,
        orders=sum(counts.values()),
        paid_orders=counts["paid"],
        cancelled_orders=counts["cancelled"],
        sales=amounts["placed"] + amounts["paid"],
        paid_sales=amounts["paid"],
        orders_by_bucket=tuple(orders),
        sales_by_bucket=tuple(sales),
    )


def format_amount(amount: int, currency: str) -> str:
    """An amount in minor units as people write it: `125000, "EUR"` → `1,250.00`."""
    return number_of(amount, currency, thousands=",")


# -- charts


@dataclass(frozen=True, slots=True)
class Series:
    """A line, or the bars of one colour: a value for each label."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, laid out: its axis ends at `top` and is marked every `step`. Labels that stay away are empty."""

    title: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    top: float
    step: float


@dataclass(frozen=True, slots=True)
class Charts:
    """Lines by day, bars by currency, and the sales by day of each of the first currencies."""

    orders: Chart
    currencies: Chart
    sales: tuple[Chart, ...]


def charts_of(sales: Sales) -> Charts:
    """Lay out the charts of a report."""
    labels = sparse([f"{day:%m-%d}" for day in sales.buckets])
    by = "일별" if sales.bucket_days == 1 else "주별"
    period = "day" if sales.bucket_days == 1 else "week"
    orders = [Series(one.currency, one.orders_by_bucket) for one in sales.currencies[:LINES_MAX]]
    counted = (
        Series(
            "미결제 Open", tuple(one.orders - one.paid_orders - one.cancelled_orders for one in sales.currencies)
        ),
        Series("결제 Paid", tuple(one.paid_orders for one in sales.currencies)),
        Series("취소 Cancelled", tuple(one.cancelled_orders for one in sales.currencies)),
    )
    amounts = [
        chart(f"{by} 매출 · Sales by {period}, {one.currency}", labels, [_in_major_units(one)])
        for one in sales.currencies[:AMOUNT_CHARTS_MAX]
    ]
    return Charts(
        orders=chart(f"{by} 주문 수 · Orders by {period}", labels, orders),
        currencies=chart(
            "통화별 주문 수 · Orders by currency", tuple(one.currency for one in sales.currencies), counted
        ),
        sales=tuple(amounts),
    )


def _in_major_units(sales: CurrencySales) -> Series:
    unit = 10 ** decimals_of(sales.currency)
    return Series(sales.currency, tuple(amount / unit for amount in sales.sales_by_bucket))


def chart(title: str, labels: Sequence[str], series: Sequence[Series]) -> Chart:
    """A chart with an axis that fits its largest value."""
    top, step = axis(max((value for one in series for value in one.values), default=0))
    return Chart(title, tuple(labels), tuple(series), top, step)


def axis(largest: float) -> tuple[float, float]:
    """Where an axis from 0 ends and how far its marks are apart: 1, 2 or 5 times a power of ten, at least 1."""
    step = 1.0
    for factor in (2.0, 2.5, 2.0) * 100:  # 1, 2, 5, 10, …
        if step * TICKS_MAX >= largest:
            break
        step *= factor
    return max(step, step * -(-largest // step)), step


def sparse(labels: Sequence[str]) -> tuple[str, ...]:
    """The same with all but about `LABELS_MAX` of them empty, the first one kept."""
    every = -(-len(labels) // LABELS_MAX)
    return tuple(label if number % every == 0 else "" for number, label in enumerate(labels))


# -- how far it is

MESSAGES: Final[Mapping[str, str]] = {
    "fetch": "Fetching orders",
    "aggregate": "Aggregating sales",
    "charts": "Creating charts",
    "pdf": "Generating the PDF",
    "mail": "Sending the mail",
}
"""What each step of a report does, by the name of its handler, in order."""

Status = Literal["pending", "in_progress", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class StepStanding:
    """A step of a report: its handler, its state, and which part of it is done, from 0 to 1."""

    handler: str
    state: str
    done: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a report is: the step `current` of `total`, and `progress` in percent."""

    status: Status
    current: int
    total: int
    progress: int
    message: str


_UNCOMMITTED_MAX: Final = 0.95
"""More of a running step is not done, whatever it says: it has all to do again, should its worker end now."""
_ENDS: Final[Mapping[str, Status]] = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled"}


def standing_of(job_state: str, steps: Sequence[StepStanding]) -> Standing:
    """How far a report is whose job and steps, in order, stand so."""
    total = len(steps)
    ended = sum(step.state == "succeeded" for step in steps)
    status = _ENDS.get(job_state)
    if status == "completed":
        return Standing(status, total, total, 100, "Completed")
    at = steps[min(ended, total - 1)]
    if status is None:
        begun = ended > 0 or at.state == "running"
        status = "in_progress" if begun else "pending"
    if status == "pending":
        return Standing(status, 0, total, 0, "Waiting for a worker")
    part = at.done if at.state == "running" else 0.0
    percent = int(100 * (ended + min(max(part, 0.0), _UNCOMMITTED_MAX)) / total)
    return Standing(status, min(ended + 1, total), total, min(percent, 99), MESSAGES.get(at.handler, at.handler))
