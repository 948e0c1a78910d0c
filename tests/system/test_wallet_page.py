"""The wallet's page for members in a browser, on the whole system: from signing in to a transfer that is done."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from tests.browser import TIMEOUT_MS, accessible, launched
from tests.system.house import PASSWORD, House
from tests.system.running_system import RunningSystem


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    async with launched() as browser:
        yield browser


@pytest.mark.parametrize(("system", "width"), [("rabbit", 1280), ("kafka", 360)], indirect=["system"])
async def test_a_member_sends_by_keyboard_and_sees_it_done_without_loading_the_page_again(
    system: RunningSystem, house: House, browser: Browser, width: int
) -> None:
    ada = await system.register("Ada")
    await house.account(ada, 10_000)
    receiver = await house.account(ada, 0)
    name = await house.name_of(ada)
    page = await browser.new_page(
        viewport={"width": width, "height": 800}, color_scheme="light", reduced_motion="reduce"
    )
    page.set_default_timeout(TIMEOUT_MS)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)

    await page.goto(f"{system.urls['wallet']}/transfer")
    await accessible(page)
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Transfer")).to_be_visible()
    await accessible(page)
    await page.evaluate("window.loadedOnce = true")

    to = page.get_by_label("To account")
    await to.fill("bob")
    await page.keyboard.press("Enter")
    await expect(to).to_be_focused()
    await expect(to).to_have_accessible_description(re.compile("Enter the receiver's account"))
    await accessible(page)

    await to.fill(receiver)
    await expect(page.locator("#receiver_id-error")).to_have_count(0)
    await page.get_by_label("Amount").fill("1,000")
    await expect(page.locator("#quote")).to_contain_text("Leaves your account")
    await page.get_by_label("Your label").fill("rent")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Send 1,000")
    await expect(dialog).to_be_visible()
    await accessible(page)
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("button", name="Review transfer")).to_be_focused()
    await page.keyboard.press("Enter")
    await dialog.get_by_role("button", name="Send 1,000").dblclick()

    done = page.locator("article.completed")
    await expect(done).to_contain_text("1,000\xa0KRW has arrived")
    await expect(done).to_be_focused()
    await expect(page.get_by_role("status")).to_contain_text("has arrived")
    await expect(page.locator("#accounts")).to_contain_text("9,000\xa0KRW")
    await expect(page.locator("#entries")).to_contain_text(re.compile(r"rent.*-1,000\xa0KRW", re.DOTALL))
    await expect(page.locator("article")).to_have_count(1)
    await accessible(page)
    await page.emulate_media(color_scheme="dark")
    await accessible(page)
    assert await page.evaluate("window.loadedOnce")

    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert complaints == []
    await page.close()
