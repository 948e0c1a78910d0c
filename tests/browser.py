"""Debian's Chromium, in which pages are used as people use them; Playwright's own would be one more download."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.native.install.system import apt_install, find_program, require_program
from deploy.progress import Steps

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

PACKAGE = "chromium"
TIMEOUT_MS = 60_000
"""Bounds a wait on a loaded machine; no test measures time."""


def ensure_browser(steps: Steps) -> None:
    """Install the browser where there is none. Raises `InstallError` naming the package."""
    if find_program(PACKAGE) is None:
        with steps.step(f"installing {PACKAGE}"):
            apt_install([PACKAGE])


def browser_program() -> Path:
    """Where the browser is. Raises `InstallError` where it is missing."""
    return require_program(PACKAGE, PACKAGE)


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """The browser, until the end of the block."""
    from playwright.async_api import async_playwright  # here: every test's conftest imports this module

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_program())
        yield browser
        await browser.close()


async def accessible(page: Page) -> None:
    """No rule of axe-core is broken by what is seen now, and nothing is wider than the window."""
    from axe_playwright_python.async_playwright import Axe

    if not await page.evaluate("'axe' in window"):  # half a megabyte, which `Axe.run` would send each time
        await page.evaluate(Axe().axe_script)
    broken = await page.evaluate("axe.run({resultTypes: ['violations']}).then(found => found.violations)")
    assert broken == []
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
