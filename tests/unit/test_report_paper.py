"""The PDF of a report, read again: its text in both languages, its tables, its charts."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from io import BytesIO

from pydantic import TypeAdapter
from pypdf import PdfReader

from services.report import domain
from services.report.app import SERVICE
from services.report.domain import DaySales, OrderState, Sales
from services.report.handlers import JOBS, paper
from services.report.handlers.daily import daily_report
from services.report.handlers.steps import Drawn
from shared.jobs.arguments import RESULT_BYTES_MAX
from shared.jobs.flatten import flatten

FIRST = date(2026, 11, 1)
STATES: tuple[OrderState, ...] = ("placed", "paid", "cancelled")


def sales_of(days: int, *currencies: str) -> Sales:
    rows = [
        DaySales(FIRST + timedelta(days=day), currency, state, day % 5 + 1, 100_000 + day)
        for day in range(days)
        for currency in currencies
        for state in STATES
    ]
    return domain.aggregate(FIRST, FIRST + timedelta(days=days - 1), rows)


def draw(sales: Sales) -> tuple[bytes, int]:
    return paper.draw(sales, domain.charts_of(sales), lambda *_: None)


def text_of(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)


def test_a_report_is_told_in_korean_and_english_with_its_tables_and_charts() -> None:
    content, pages = draw(sales_of(10, "KRW", "EUR"))
    text = text_of(content)
    assert len(PdfReader(BytesIO(content)).pages) == pages
    for words in (
        "매출 보고서",
        "Sales report",
        "2026-11-01 ~ 2026-11-10",
        "통화별 요약",
        "취소된 주문을 뺀 금액입니다",
    ):
        assert words in text
    for title in ("Orders by day", "Orders by currency", "Sales by day, KRW", "Sales by day, EUR"):
        assert title in text
    euro = sales_of(10, "EUR").currencies[0]
    assert f"{euro.orders:,}" in text
    assert domain.format_amount(euro.sales, "EUR") in text
    assert text.count("2026-11-07") == 2, "a row for each currency of that day"


def test_the_same_report_is_the_same_bytes() -> None:
    sales = sales_of(3, "USD")
    assert draw(sales) == draw(sales)


def test_a_single_day_has_bars_and_no_lines() -> None:
    text = text_of(draw(sales_of(1, "EUR"))[0])
    assert "Orders by currency" in text
    assert "Orders by day" not in text


def test_a_period_without_orders_says_so() -> None:
    content, pages = draw(sales_of(7))
    assert pages == 1
    assert "There are no orders in this period" in text_of(content)


def test_the_fonts_are_embedded_so_that_every_reader_shows_korean() -> None:
    reader = PdfReader(BytesIO(draw(sales_of(1, "KRW"))[0]))
    fonts = [font.get_object() for font in reader.pages[0]["/Resources"]["/Font"].values()]  # type: ignore[index]
    nanum = [font for font in fonts if "Nanum" in font["/BaseFont"]]
    assert nanum
    assert all("/FontFile2" in font["/FontDescriptor"] for font in nanum)


def test_the_largest_report_fits_in_the_result_of_a_step() -> None:
    currencies = [f"A{letter}A" for letter in "ABCDEFGHIJKLMN"]
    rows = [
        DaySales(FIRST + timedelta(days=day), currency, state, 10**6, 10**18)
        for day in range(domain.DAILY_MAX)
        for currency in currencies
        for state in STATES
    ]
    sales = domain.aggregate(FIRST, FIRST + timedelta(days=domain.DAILY_MAX - 1), rows)
    drawn = TypeAdapter(Drawn).dump_json(Drawn(sales, domain.charts_of(sales)))
    assert len(drawn) <= RESULT_BYTES_MAX


def test_all_steps_are_leased_so_that_the_service_needs_no_relay() -> None:
    steps = flatten(daily_report(datetime(2026, 11, 28, 9, tzinfo=domain.ZONE))).steps
    assert [step.job.name for step in steps] == list(domain.MESSAGES)
    assert all(step.job.leased for step in steps)
    assert SERVICE.publishes == ()
    assert JOBS.ready.event_type == "report.step_ready"
