"""Draws a sales report as PDF, in Korean and English; the same one is the same bytes, however often it is drawn.

reportlab draws; the font is NanumGothic, which has both scripts, from where `koreanize-matplotlib` keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.legends import Legend
from reportlab.graphics.charts.linecharts import HorizontalLineChart
from reportlab.graphics.shapes import Drawing, String
from reportlab.graphics.widgets.markers import makeMarker
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, LongTable, Paragraph, SimpleDocTemplate, Spacer, Table

from services.report.domain import Chart, Charts, Sales, format_amount
from shared.errors import ConfigurationError

_FONTS: Final = {"Nanum": "NanumGothic.ttf", "Nanum-Bold": "NanumGothicBold.ttf"}
_PACKAGE: Final = "koreanize_matplotlib"
_MARGIN: Final = 18 * mm
_PADDING: Final = 6
"""In points, as reportlab's frames have it round what is in them."""
_WIDTH: Final = A4[0] - 2 * (_MARGIN + _PADDING)
_CHART_HEIGHT: Final = 56 * mm
_BARS_WIDTH_MAX: Final = 110
"""Of the bars of one label."""
_MARKED_MAX: Final = 31
"""Lines of more points have no marks on them."""
_INK, _GREY, _RULE, _HEAD = HexColor("#1b2430"), HexColor("#6b7684"), HexColor("#d5dae1"), HexColor("#eef1f5")
_COLOURS: Final = [HexColor(code) for code in ("#2f6fde", "#e0803a", "#2a9d6f", "#b5479d", "#8a6d3b", "#5b6770")]

_TITLE = ParagraphStyle("title", fontName="Nanum-Bold", fontSize=20, leading=26, textColor=_INK)
_HEADING = ParagraphStyle(
    "heading",
    fontName="Nanum-Bold",
    fontSize=11,
    leading=16,
    textColor=_INK,
    spaceBefore=12,
    spaceAfter=4,
    keepWithNext=1,
)
_TEXT = ParagraphStyle("text", fontName="Nanum", fontSize=9, leading=13, textColor=_GREY)
_CELL = ParagraphStyle("cell", fontName="Nanum", fontSize=8.5, leading=11, textColor=_INK)
_NUMBER = ParagraphStyle("number", parent=_CELL, alignment=TA_RIGHT)
_COLUMN = ParagraphStyle("column", parent=_CELL, fontName="Nanum-Bold")
_NUMBERS = ParagraphStyle("numbers", parent=_COLUMN, alignment=TA_RIGHT)

OnProgress = Callable[[float, float, str], None]


def draw(sales: Sales, charts: Charts, on_progress: OnProgress) -> tuple[bytes, int]:
    """The PDF, and how many pages it has. Raises `ConfigurationError` where the font is not installed."""
    _register_fonts()
    on_progress(1, 4, "Generating the PDF")
    parts = [*_head(sales), *_by_currency(sales)]
    if sales.currencies:
        plots = [_bars(charts.currencies)]
        if len(sales.buckets) > 1:  # a line has two ends
            plots = [_lines(charts.orders), *plots, *(_lines(chart) for chart in charts.sales)]
        parts += [part for plot in plots for part in (Spacer(0, 4 * mm), plot)]
        parts += _by_day(sales)
    on_progress(2, 4, "Generating the PDF")
    file = BytesIO()
    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=f"매출 보고서 · Sales report {sales.start} ~ {sales.end}",
        author="Tandem",
        lang="ko",
        invariant=1,
    )
    foot = partial(_foot, f"{sales.start} ~ {sales.end}")
    document.build(parts, onFirstPage=foot, onLaterPages=foot)
    on_progress(4, 4, "Generating the PDF")
    return file.getvalue(), document.page


@cache
def _register_fonts() -> None:
    found = find_spec(_PACKAGE)  # it is not imported: what it depends on is not installed
    if found is None or found.origin is None:
        raise ConfigurationError(f"{_PACKAGE}, which has the report's font, is not installed")
    folder = Path(found.origin).parent / "fonts"
    for name, file in _FONTS.items():
        pdfmetrics.registerFont(TTFont(name, str(folder / file)))


def _foot(period: str, canvas: Canvas, document: SimpleDocTemplate) -> None:
    canvas.saveState()
    canvas.setFont("Nanum", 8)
    canvas.setFillColor(_GREY)
    canvas.drawString(_MARGIN + _PADDING, 10 * mm, f"Tandem · 매출 보고서 Sales report · {period}")
    canvas.drawRightString(A4[0] - _MARGIN - _PADDING, 10 * mm, str(document.page))
    canvas.restoreState()


# -- text and tables


def _head(sales: Sales) -> list[Flowable]:
    days = (sales.end - sales.start).days + 1
    said = f"{sales.start} ~ {sales.end} · {days}일 {days} {'day' if days == 1 else 'days'} · Asia/Seoul"
    if not sales.currencies:
        said += "<br/>이 기간에는 주문이 없습니다. There are no orders in this period."
    return [Paragraph("매출 보고서 · Sales report", _TITLE), Paragraph(said, _TEXT), Spacer(0, 3 * mm)]


def _by_currency(sales: Sales) -> list[Flowable]:
    if not sales.currencies:
        return []
    counts = ("통화<br/>Currency", "주문<br/>Orders", "결제<br/>Paid", "취소<br/>Cancelled")
    names = (*counts, "매출<br/>Sales", "결제된 매출<br/>Sales paid")
    rows = [
        [
            _text(one.currency),
            *(_number(f"{count:,}") for count in (one.orders, one.paid_orders, one.cancelled_orders)),
            *(_number(format_amount(amount, one.currency)) for amount in (one.sales, one.paid_sales)),
        ]
        for one in sales.currencies
    ]
    said = "매출은 취소된 주문을 뺀 금액입니다. Sales are without orders that were cancelled."
    if sales.currencies_left_out:
        count = sales.currencies_left_out
        said += (
            f" 주문이 더 적은 통화 {count}개는 생략했습니다. Without {count} currencies that have fewer orders."
        )
    widths = [_WIDTH * part for part in (0.12, 0.12, 0.12, 0.14, 0.25, 0.25)]
    return [
        Paragraph("통화별 요약 · By currency", _HEADING),
        _styled(Table([_columns(names, 1), *rows], widths, repeatRows=1)),
        Spacer(0, 1 * mm),
        Paragraph(said, _TEXT),
    ]


def _by_day(sales: Sales) -> list[Flowable]:
    daily = sales.bucket_days == 1
    rows = [
        [
            _text(str(day)),
            _text(one.currency),
            _number(f"{one.orders_by_bucket[number]:,}"),
            _number(format_amount(one.sales_by_bucket[number], one.currency)),
        ]
        for number, day in enumerate(sales.buckets)
        for one in sales.currencies
        if one.orders_by_bucket[number]
    ]
    names = ("날짜 Day" if daily else "주 시작일 Week from", "통화 Currency", "주문 Orders", "매출 Sales")
    widths = [_WIDTH * part for part in (0.3, 0.2, 0.2, 0.3)]
    return [
        Paragraph("일별 표 · By day" if daily else "주별 표 · By week", _HEADING),
        _styled(LongTable([_columns(names, 2), *rows], widths, repeatRows=1)),
    ]


def _columns(names: Sequence[str], text_count: int) -> list[Paragraph]:
    return [Paragraph(name, _COLUMN if number < text_count else _NUMBERS) for number, name in enumerate(names)]


def _text(text: str) -> Paragraph:
    return Paragraph(text, _CELL)


def _number(text: str) -> Paragraph:
    return Paragraph(text, _NUMBER)


def _styled(table: Table) -> Table:
    table.setStyle(
        [
            ("BACKGROUND", (0, 0), (-1, 0), _HEAD),
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, _RULE),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ("TOPPADDING", (0, 0), (-1, -1), 3),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
        ]
    )
    return table


# -- charts


def _lines(chart: Chart) -> Drawing:
    lines = HorizontalLineChart()
    lines.data = [one.values for one in chart.series]
    for number in range(len(chart.series)):
        lines.lines[number].strokeColor = _colour(number)
        lines.lines[number].strokeWidth = 1.6
        if len(chart.labels) <= _MARKED_MAX:
            lines.lines[number].symbol = makeMarker(  # type: ignore[no-untyped-call]
                "FilledCircle", size=3.5, fillColor=_colour(number), strokeColor=_colour(number)
            )
    return _framed(chart, lines, _WIDTH)


def _bars(chart: Chart) -> Drawing:
    bars = VerticalBarChart()
    bars.data = [one.values for one in chart.series]
    bars.groupSpacing = 8
    bars.barSpacing = 1
    for number in range(len(chart.series)):
        bars.bars[number].fillColor = _colour(number)
        bars.bars[number].strokeColor = None
    return _framed(chart, bars, _BARS_WIDTH_MAX * len(chart.labels))


def _framed(chart: Chart, plot: Any, width_max: float) -> Drawing:
    drawing = Drawing(_WIDTH, _CHART_HEIGHT)
    drawing.add(String(0, _CHART_HEIGHT - 10, chart.title, fontName="Nanum-Bold", fontSize=10, fillColor=_INK))
    left = 6 + max(pdfmetrics.stringWidth(f"{mark:,.0f}", "Nanum", 7.5) for mark in (chart.top, 0))
    plot.x, plot.y = left, 18
    plot.width, plot.height = min(_WIDTH - left, width_max), _CHART_HEIGHT - 52
    plot.categoryAxis.categoryNames = list(chart.labels)
    plot.valueAxis.valueMin, plot.valueAxis.valueMax, plot.valueAxis.valueStep = 0, chart.top, chart.step
    plot.valueAxis.labelTextFormat = lambda value: f"{value:,.0f}"
    plot.valueAxis.visibleGrid = True
    plot.valueAxis.gridStrokeColor = _RULE
    plot.valueAxis.gridStrokeWidth = 0.4
    plot.categoryAxis.visibleTicks = False
    for axis in (plot.categoryAxis, plot.valueAxis):
        axis.strokeColor = _RULE
        axis.labels.fontName, axis.labels.fontSize, axis.labels.fillColor = "Nanum", 7.5, _GREY
    drawing.add(plot)
    if len(chart.series) > 1:
        drawing.add(_legend(chart))
    return drawing


def _legend(chart: Chart) -> Legend:
    legend = Legend()
    legend.x, legend.y = 0, int(_CHART_HEIGHT) - 17
    legend.boxAnchor = "nw"
    legend.columnMaximum = 1
    legend.alignment = "right"
    legend.dxTextSpace, legend.deltax, legend.dx, legend.dy = 4, 14, 8, 5
    legend.strokeWidth = 0
    legend.strokeColor = None
    legend.autoXPadding = 12
    legend.fontName, legend.fontSize, legend.fillColor = "Nanum", 8, _INK
    legend.colorNamePairs = [(_colour(number), one.name) for number, one in enumerate(chart.series)]
    return legend


def _colour(number: int) -> Color:
    return _COLOURS[number % len(_COLOURS)]
