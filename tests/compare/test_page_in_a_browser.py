"""The report's page as a person opens it: from a file, without a network, on a phone and on paper, in the dark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from compare.document import Summary
from compare.measured import ScenarioResult
from compare.report.page import render_page
from compare.summary import summarise
from experiment.beside import Told
from experiment.layers import MODES
from tests.browser import TIMEOUT_MS, accessible, launched
from tests.compare.test_judgement import APART, run_result, steady
from tests.compare.test_ladder import rate
from tests.compare.test_layers import result


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with everything that one can have."""
    place = tmp_path_factory.mktemp("report")
    run = run_result(place, APART)
    for broker, measured in run.sides.items():
        measured.climb.tries = [rate(200), rate(400, "the backlog grew from 1 to 99 events")]
        measured.climb.rungs = {share: rate(200 * share, cores=share, broker=broker) for share in (0.1, 0.5, 0.85)}
        told = Told(counts={"ended": 1_200, "steps": 6_600, "unanswered": 3})
        told.latencies.record(0.25)
        measured.scenarios = [ScenarioResult("jobs", steady("jobs-1", 0.02, {}), {}, (20.0, None), told)]
        measured.layers = [
            result("consume", mode.name, 7_000, consumers=count)
            for mode in MODES.values()
            for count in mode.consumers
            if mode.broker == broker
        ]
    path = place / "report.html"
    path.write_text(render_page(Summary.model_validate(summarise(run, "make compare FULL=1"))))
    return path


async def opened(browser: Browser, report: Path, width: int, scheme: str) -> Page:
    page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(TIMEOUT_MS)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(report.as_uri())
    assert asked == [report.as_uri()]
    return page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
async def test_no_rule_of_accessibility_is_broken_and_nothing_is_wider_than_the_window(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    page = await opened(browser, report, width, scheme)
    await accessible(page)
    await page.close()


async def test_on_paper_no_table_is_cut_off(browser: Browser, report: Path) -> None:
    page = await opened(browser, report, 720, "light")
    await page.emulate_media(media="print")
    cut = await page.evaluate(
        "[...document.querySelectorAll('.wide')]"
        ".filter(each => getComputedStyle(each).overflowX !== 'visible').length"
    )
    assert cut == 0
    await page.close()
