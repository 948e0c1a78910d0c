"""What a sales report says: days, sums, axes, and how far it is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.report import domain
from services.report.domain import DaySales, StepStanding

NOW = datetime(2026, 11, 28, 20, tzinfo=UTC)
FIRST = date(2026, 11, 1)
STEPS = list(domain.MESSAGES)


@pytest.mark.parametrize(
    ("time", "day"),
    [
        ("2026-11-27T14:59:59Z", date(2026, 11, 27)),
        ("2026-11-27T15:00:00Z", date(2026, 11, 28)),
        ("2026-11-27T23:30:00-05:00", date(2026, 11, 28)),
        (None, date(2026, 11, 29)),
        ("yesterday", date(2026, 11, 29)),
        ("2026-11-27T14:59:59", date(2026, 11, 29)),
    ],
)
def test_a_day_is_one_of_seoul_and_today_where_the_time_cannot_be_read(time: str | None, day: date) -> None:
    assert domain.day_of(time, NOW) == day


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (FIRST, FIRST, None),
        (date(2026, 11, 28), date(2027, 1, 31), None),
        (FIRST - timedelta(days=365), FIRST, None),
        (FIRST - timedelta(days=366), FIRST, "end_date"),
        (FIRST, FIRST - timedelta(days=1), "end_date"),
        (date(2026, 11, 29), date(2026, 11, 30), "start_date"),
        (date(1999, 12, 31), date(2000, 1, 1), "start_date"),
        (date(2000, 1, 1), date(2000, 1, 1), None),
        (date.min, date.max, "end_date"),
    ],
)
def test_a_period_has_its_days_in_order_begins_in_the_past_and_is_a_year_at_most(
    start: date, end: date, field: str | None
) -> None:
    problem = domain.problem_of(start, end, date(2026, 11, 28))
    assert (problem and problem[0]) == field


def test_what_is_wrong_with_a_period_is_said_in_a_sentence() -> None:
    today = date(2026, 11, 28)
    said = [
        domain.problem_of(FIRST, FIRST - timedelta(days=1), today),
        domain.problem_of(today + timedelta(days=1), today + timedelta(days=1), today),
    ]
    assert said == [
        ("end_date", "end_date must not be before start_date"),
        ("start_date", "start_date must not be in the future"),
    ]


def test_a_long_period_is_told_by_weeks() -> None:
    end = FIRST + timedelta(days=domain.DAILY_MAX)
    days = (0, 6, 7, 13, 14)
    rows = [DaySales(FIRST + timedelta(days=day), "EUR", "paid", 10**place, 1) for place, day in enumerate(days)]
    sales = domain.aggregate(FIRST, end, rows)
    assert (sales.start, sales.end, sales.bucket_days) == (FIRST, end, 7)
    assert sales.buckets[:3] == (FIRST, FIRST + timedelta(days=7), FIRST + timedelta(days=14))
    assert sales.currencies[0].orders_by_bucket[:4] == (11, 1_100, 10_000, 0)


def test_sales_are_added_up_by_currency_and_day_without_what_was_cancelled() -> None:
    rows = [
        DaySales(FIRST, "EUR", "placed", 2, 1_000),
        DaySales(FIRST, "EUR", "cancelled", 1, 700),
        DaySales(FIRST + timedelta(days=2), "EUR", "paid", 3, 9_000),
        DaySales(FIRST, "KRW", "paid", 7, 50_000),
    ]
    sales = domain.aggregate(FIRST, FIRST + timedelta(days=2), rows)
    assert sales.buckets == (FIRST, FIRST + timedelta(days=1), FIRST + timedelta(days=2))
    won, euro = sales.currencies
    assert (won.currency, won.orders, won.sales, won.paid_sales) == ("KRW", 7, 50_000, 50_000)
    assert (euro.orders, euro.paid_orders, euro.cancelled_orders) == (6, 3, 1)
    assert (euro.sales, euro.paid_sales) == (10_000, 9_000)
    assert (euro.orders_by_bucket, euro.sales_by_bucket) == ((3, 0, 3), (1_000, 0, 9_000))
    assert sales.orders == 13


ROWS = st.lists(
    st.builds(
        DaySales,
        day=st.dates(FIRST, FIRST + timedelta(days=domain.DAYS_MAX - 1)),
        currency=st.sampled_from([f"{letter}AA" for letter in "ABCDEFGHIJKLMN"]),
        state=st.sampled_from(["placed", "paid", "cancelled"]),
        orders=st.integers(1, 10**6),
        amount=st.integers(0, 10**12),
    ),
    max_size=40,
)


@settings(max_examples=50)
@given(ROWS, st.integers(0, domain.DAYS_MAX - 1))
def test_whatever_the_period_the_buckets_add_up_to_the_whole_and_stay_few(rows: list[DaySales], days: int) -> None:
    end = FIRST + timedelta(days=days)
    within = [row for row in rows if row.day <= end]
    sales = domain.aggregate(FIRST, end, within)
    assert len(sales.buckets) <= domain.DAILY_MAX
    assert sales.buckets[-1] <= end < sales.buckets[-1] + timedelta(days=sales.bucket_days)
    currencies = {row.currency for row in within}
    assert len(sales.currencies) + sales.currencies_left_out == len(currencies)
    for one in sales.currencies:
        own = [row for row in within if row.currency == one.currency]
        assert sum(one.orders_by_bucket) == one.orders == sum(row.orders for row in own)
        assert sum(one.sales_by_bucket) == one.sales
        assert one.sales == sum(row.amount for row in own if row.state != "cancelled")


@given(st.floats(0, 1e15))
def test_an_axis_reaches_its_largest_value_with_a_few_round_marks(largest: float) -> None:
    top, step = domain.axis(largest)
    assert top >= largest
    assert 1 <= round(top / step) <= domain.TICKS_MAX
    assert f"{step:e}"[0] in "125"


@pytest.mark.parametrize(
    ("largest", "ends"), [(0, (1, 1)), (6, (6, 1)), (7, (8, 2)), (12, (12, 2)), (13, (15, 5)), (31, (40, 10))]
)
def test_an_axis_has_as_many_marks_as_it_may_before_they_are_further_apart(
    largest: float, ends: tuple[float, float]
) -> None:
    assert domain.axis(largest) == ends


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(125_000, "EUR", "1,250.00"), (5, "USD", "0.05"), (1_250, "KRW", "1,250"), (1_234_567, "KWD", "1,234.567")],
)
def test_an_amount_has_the_decimals_of_its_currency(amount: int, currency: str, text: str) -> None:
    assert domain.format_amount(amount, currency) == text


@pytest.mark.parametrize(
    ("days", "by", "period"), [(domain.DAILY_MAX, "일별", "day"), (domain.DAILY_MAX + 1, "주별", "week")]
)
def test_the_charts_of_sales_say_what_they_show_and_in_which_unit(days: int, by: str, period: str) -> None:
    rows = [
        DaySales(FIRST, "EUR", "placed", 9, 125_000),
        DaySales(FIRST, "EUR", "paid", 4, 0),
        DaySales(FIRST, "EUR", "cancelled", 1, 700),
        DaySales(FIRST, "KRW", "placed", 2, 5_000),
    ]
    charts = domain.charts_of(domain.aggregate(FIRST, FIRST + timedelta(days=days - 1), rows))
    assert charts.orders.title == f"{by} 주문 수 · Orders by {period}"
    assert [(line.name, line.values[0]) for line in charts.orders.series] == [("EUR", 14), ("KRW", 2)]
    assert charts.orders.labels[0] == "11-01"
    assert charts.currencies == domain.Chart(
        "통화별 주문 수 · Orders by currency",
        ("EUR", "KRW"),
        (
            domain.Series("미결제 Open", (9, 2)),
            domain.Series("결제 Paid", (4, 0)),
            domain.Series("취소 Cancelled", (1, 0)),
        ),
        top=10,
        step=2,
    )
    assert [chart.title for chart in charts.sales] == [
        f"{by} 매출 · Sales by {period}, {unit}" for unit in ("EUR", "KRW")
    ]
    assert [(one.name, one.values[0]) for chart in charts.sales for one in chart.series] == [
        ("EUR", 1_250.0),
        ("KRW", 5_000.0),
    ]


def test_a_chart_of_nothing_has_an_axis_of_one() -> None:
    assert domain.chart("nothing", (), ()) == domain.Chart("nothing", (), (), top=1.0, step=1.0)


def test_of_many_labels_a_few_are_shown() -> None:
    shown = domain.sparse([str(number) for number in range(92)])
    assert len(shown) == 92
    assert shown[0] == "0"
    every = -(-92 // domain.LABELS_MAX)
    assert [label for label in shown if label] == [str(number) for number in range(0, 92, every)]


def standing(job_state: str, *states: str, done: float = 0.0) -> domain.Standing:
    rest = ["waiting"] * (len(STEPS) - len(states))
    return domain.standing_of(
        job_state, [StepStanding(name, state, done) for name, state in zip(STEPS, [*states, *rest], strict=True)]
    )


def test_a_report_goes_from_pending_to_completed_in_percent() -> None:
    told = [
        standing("waiting", "ready"),
        standing("waiting", "running"),
        standing("running", "succeeded", "ready"),
        standing("running", *["succeeded"] * 3, "running", done=0.5),
        standing("running", *["succeeded"] * 4, "running", done=1.0),
        standing("succeeded", *["succeeded"] * 5),
    ]
    assert [one.status for one in told] == ["pending", *["in_progress"] * 4, "completed"]
    assert [one.progress for one in told] == [0, 0, 20, 70, 99, 100]
    assert [one.current for one in told] == [0, 1, 2, 4, 5, 5]
    assert {one.total for one in told} == {5}
    assert [one.message for one in told] == [
        "Waiting for a worker", "Fetching orders", "Aggregating sales", "Generating the PDF", "Sending the mail",
        "Completed",
    ]  # fmt: skip


def test_a_step_whose_work_is_not_committed_is_not_done() -> None:
    told = standing("running", *["succeeded"] * 3, "running", done=1.0)
    assert (told.current, told.progress) == (4, 79)
    assert standing("running", *["succeeded"] * 4, "running", done=0.94).progress == 98, "rounded down"


def test_a_step_that_does_not_run_has_done_no_part_of_it() -> None:
    assert standing("running", "succeeded", "ready", done=0.5).progress == 20


def test_between_its_last_step_and_its_end_a_report_is_in_progress() -> None:
    told = standing("running", *["succeeded"] * 5)
    assert (told.status, told.current, told.total, told.progress) == ("in_progress", 5, 5, 99)


def test_a_step_without_words_of_its_own_is_told_by_its_name() -> None:
    assert domain.standing_of("running", [StepStanding("zip", "running")]).message == "zip"


def test_a_failed_or_cancelled_report_says_where_it_stopped() -> None:
    failed = standing("failed", "succeeded", "succeeded", "succeeded", "failed", "skipped")
    assert (failed.status, failed.current, failed.progress) == ("failed", 4, 60)
    cancelled = standing("cancelled", *["cancelled"] * 5)
    assert (cancelled.status, cancelled.current, cancelled.progress) == ("cancelled", 1, 0)
