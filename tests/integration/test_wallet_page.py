"""The wallet's page for members, on a real PostgreSQL; a test does the worker's part, and the browser's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr

from deploy.native import Runtime
from services.wallet.handlers.accounts import adjust
from services.wallet.handlers.subscribers import SUBSCRIBERS
from services.wallet.http import create_app
from shared.process.service import Service
from tests.integration.wallets import PASSWORD, Wallet, opened_wallet
from tests.unit.unserved import unserved

ADMIN_PASSWORD = "the first of all"


@pytest.fixture
async def wallet(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wallet]:
    async with opened_wallet(servers, monkeypatch) as wallet:
        yield wallet


@pytest.fixture
async def ada(wallet: Wallet) -> UUID:
    user_id = await wallet.user(free_transfers=1)
    await wallet.can_sign_in(user_id, "ada")
    return user_id


@pytest.fixture
async def page(wallet: Wallet, ada: UUID) -> AsyncIterator[Page]:
    """The page, at which Ada signs in."""
    parts = unserved(Service("wallet", subscribers=SUBSCRIBERS))
    told = {"transfer_fees": "0:5+0", "wallet_admin_password": SecretStr(ADMIN_PASSWORD)}
    app = create_app(replace(parts, units=wallet.units, settings=parts.settings.model_copy(update=told)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet") as client:
        page = Page(client)
        assert (await page.sign_in("ada", PASSWORD)).headers["location"] == "/transfer"
        yield page


class Page:
    """What a browser would do with the page."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def sign_in(self, name: str, password: str) -> httpx.Response:
        return await self.client.post("/transfer/sign-in", data={"name": name, "password": password})

    async def part(self, path: str = "", *, key: str | None = None, **fields: object) -> httpx.Response:
        """Send a form as htmx does."""
        headers = {"hx-request": "true"} | ({} if key is None else {"idempotency-key": key})
        return await self.client.post(f"/transfer{path}", data=fields, headers=headers)

    async def look(self, path: str = "", **query: str) -> httpx.Response:
        return await self.client.get(f"/transfer{path}", params=query or None, headers={"hx-request": "true"})


def dialog_of(answer: httpx.Response) -> tuple[str, dict[str, str]]:
    """The key of the dialog, and its fields."""
    [key] = re.findall(r'"Idempotency-Key": "([^"]+)"', answer.text)
    return key, dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', answer.text))


async def test_a_transfer_is_quoted_asked_about_sent_once_and_seen_to_its_end(
    wallet: Wallet, ada: UUID, page: Page
) -> None:
    sender, receiver = await wallet.account(100_000, ada), await wallet.account()
    whole = await page.look()
    assert whole.status_code == 200
    assert f'<option value="{sender}" selected>' in whole.text
    quoted = await page.part("/quote", sender_id=sender, amount="1,000")
    assert (quoted.status_code, "free transfer" in quoted.text) == (200, True)
    fields = {
        "sender_id": str(sender),
        "receiver_id": str(receiver),
        "amount": "1,000",
        "sender_label": "rent",
    }
    key, hidden = dialog_of(await page.part("/confirm", **fields))
    assert hidden == fields | {"receiver_label": "", "fee": "0"}
    answers = await asyncio.gather(*(page.part(key=key, **hidden) for _ in range(2)))
    assert [one.status_code for one in answers] == [202, 202], "a double click"
    [transfer_id] = {
        UUID(one) for answer in answers for one in re.findall(r"/transfer/([0-9a-f-]{36})\"", answer.text)
    }
    assert "is on its way" in (await page.look()).text, "whoever loads the page again sees what is under way"
    pending = await page.look(f"/{transfer_id}")
    assert (pending.status_code, pending.content) == (204, b"")
    await wallet.execute([await wallet.transfer_of(transfer_id)])
    done = await page.look(f"/{transfer_id}")
    assert (done.status_code, done.headers["hx-trigger"]) == (200, "transfer-ended")
    assert "has arrived" in done.text
    assert "every 1s" not in done.text
    assert "99,000\xa0KRW" in (await page.look("/accounts")).text
    assert "-1,000\xa0KRW" in (await page.look("/entries", account_id=str(sender))).text
    assert await wallet.query("select count(*) from transfer") == [1]
    other = await page.part(key=key, **hidden | {"amount": "1"})
    assert (other.status_code, "sent already" in other.text) == (409, True)
    assert await wallet.broken_rules() == []


async def test_what_is_refused_is_said_in_the_form_before_and_after_it_is_confirmed(
    wallet: Wallet, ada: UUID, page: Page
) -> None:
    sender, receiver = await wallet.account(1_000, ada), await wallet.account()
    for change, status, sentence in (
        ({"amount": "1,001"}, 409, "Not enough: 1,000\xa0KRW is available"),
        ({"receiver_id": str(uuid4())}, 404, "There is no such account."),
        ({"receiver_id": str(sender)}, 409, "it is the account that sends."),
        ({"sender_id": str(uuid4())}, 422, "Choose one of your accounts."),
        ({"amount": "2,000,000,000"}, 409, "may be sent in one transfer"),
        ({"amount": "none"}, 422, "Enter an amount of KRW"),
    ):
        fields = {"sender_id": str(sender), "receiver_id": str(receiver), "amount": "1"} | change
        for answer in (await page.part("/confirm", **fields), await page.part(key="k", fee="0", **fields)):
            assert (answer.status_code, sentence in answer.text) == (status, True), change
            assert "<dialog" not in answer.text
            assert 'aria-invalid="true" autofocus' in answer.text
            assert f'value="{fields["amount"]}"' in answer.text, "what was filled in stays"
    assert await wallet.query("select count(*) from transfer") == [0]


async def test_another_fee_than_was_agreed_to_is_asked_about_again(wallet: Wallet, ada: UUID, page: Page) -> None:
    sender, receiver = await wallet.account(1_000, ada), await wallet.account()
    fields = {"sender_id": str(sender), "receiver_id": str(receiver), "amount": "10"}
    key, hidden = dialog_of(await page.part("/confirm", **fields))
    assert (await page.part(key="another", **hidden)).status_code == 202
    again = await page.part(key=key, **hidden)
    assert (again.status_code, "The fee has changed" in again.text) == (409, True)
    new_key, asked = dialog_of(again)
    assert asked == hidden | {"fee": "5"}
    assert (await page.part(key=new_key, **asked)).status_code == 202
    assert await wallet.query("select fee from transfer order by id") == [0, 5]


async def test_what_is_pending_is_taken_back_once(wallet: Wallet, ada: UUID, page: Page) -> None:
    sender, receiver = await wallet.account(1_000, ada), await wallet.account()
    sent = await wallet.ask(sender, receiver, 10)
    taken = await page.part(f"/{sent.id}/cancel")
    assert (taken.status_code, taken.headers["hx-trigger"]) == (200, "transfer-ended")
    assert "You took 10\xa0KRW back" in taken.text
    again = await page.part(f"/{sent.id}/cancel")
    assert (again.status_code, "You took 10\xa0KRW back" in again.text) == (409, True)
    late = await wallet.ask(sender, receiver, 10)
    await wallet.change("update transfer set requested_at = now() - interval '1 hour'")
    assert "Look again" in (await page.look(f"/{late.id}")).text, "it is watched for ten minutes"


async def test_entries_go_on_from_page_to_page(wallet: Wallet, ada: UUID, page: Page) -> None:
    account = await wallet.account(0, ada)
    for amount in range(1, 13):
        async with wallet.units.begin() as uow:
            await adjust(uow, account, amount, "paid in", "teller")
    first = await page.look("/entries", account_id=str(account))
    [older] = re.findall(r'hx-get="/transfer(/entries[^"]+)"[^>]*>Older', first.text)
    rest = await page.look(older.replace("&amp;", "&"))
    assert [int(one) for one in re.findall(r"\+(\d+)\xa0KRW", first.text + rest.text)] == list(range(12, 0, -1))
    assert ("Older" in rest.text, "<h2" in rest.text) == (False, False)


async def test_nobody_sees_or_moves_what_is_another_s(wallet: Wallet, page: Page) -> None:
    theirs, receiver = await wallet.account(1_000), await wallet.account()
    sent = await wallet.ask(theirs, receiver, 10)
    for path, query in (("/entries", {"account_id": str(theirs)}), (f"/{sent.id}", {}), ("/entries", {})):
        assert (await page.look(path, **query)).status_code == 404
    assert (await page.part(f"/{sent.id}/cancel")).status_code == 404
    assert (await page.part("/confirm", sender_id=theirs, receiver_id=receiver, amount="1")).status_code == 422
    assert str(theirs) not in (await page.look("", account_id=str(theirs))).text


async def test_what_the_dialog_never_sends_is_refused_and_moves_nothing(
    wallet: Wallet, ada: UUID, page: Page
) -> None:
    sender, receiver = await wallet.account(1_000, ada), await wallet.account()
    fields = {"sender_id": str(sender), "receiver_id": str(receiver), "amount": "1", "fee": "0"}
    for key in (None, "", "k k", '"', "k" * 300):
        assert (await page.part(key=key, **fields)).status_code == 422, key
    for change in (
        {"fee": ""}, {"fee": "-1"}, {"fee": "9" * 4_000}, {"fee": "\u0661"}, {"amount": "9" * 4_000},
        {"amount": "\0"}, {"receiver_id": "0" * 4_000}, {"sender_id": "\0"}, {"sender_label": "\0"},
        {"receiver_label": "a\nb"},
    ):  # fmt: skip
        assert (await page.part(key="k", **fields | change)).status_code == 422, change
    for cursor in ("\0", "x" * 4_000, "MA"):
        assert (await page.look("/entries", account_id=str(sender), cursor=cursor)).status_code == 422
    assert await wallet.query("select count(*) from transfer") == [0]


async def test_signing_out_and_signing_in_as_another_role_are_pages_too(page: Page) -> None:
    out = await page.client.post("/transfer/sign-out")
    assert (out.status_code, page.client.cookies) == (303, httpx.Cookies())
    wrong = await page.sign_in("ada", "wrong")
    assert (wrong.status_code, 'value="ada"' in wrong.text) == (401, True)
    page.client.cookies.set("tandem_session", "over")
    assert "Your session has ended" in (await page.client.get("/transfer")).text
    page.client.cookies.clear()
    assert (await page.sign_in("admin", ADMIN_PASSWORD)).status_code == 303
    refused = await page.client.get("/transfer")
    assert (refused.status_code, "for members" in refused.text) == (403, True)
