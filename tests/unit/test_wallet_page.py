"""The wallet's page for members, as far as it goes without servers: what it refuses, says, renders and vendors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from services.wallet.domain.accounts import (
    Account,
    AccountFrozenError,
    AccountKind,
    AccountNotFoundError,
    InsufficientFundsError,
)
from services.wallet.domain.limits import Limits
from services.wallet.domain.quotes import FeeChangedError, LimitExceededError, MemberInactiveError
from services.wallet.domain.transfers import FailureReason, ReceiverError, Transfer, TransferStatus
from services.wallet.http import create_app, page
from services.wallet.http.page import words
from services.wallet.http.page.forms import empty, filled
from services.wallet.http.page.views import FILES, HEADERS, HTMX, PATH, Views
from shared.http.bodies import FORM_BYTES_MAX
from shared.http.idempotency import KeyReusedError
from shared.process.service import Service
from tests.unit.unserved import unserved

STATIC = Path(page.__file__).with_name("static")
HTMX_SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
"""Of dist/htmx.min.js in npm's htmx.org 2.0.11."""
ID = UUID("0198c0de-0000-7000-8000-00000000000a")
OTHER = UUID("0198c0de-0000-7000-8000-00000000000b")
ACCOUNT = Account(
    id=ID, kind=AccountKind.MEMBER, currency="EUR", user_id=UUID(int=1), limits=Limits(1, 1), balance=1_250
)
FORM = {"sender_id": str(ID), "receiver_id": str(OTHER), "amount": "12.50"}
PARTS = ["", "/accounts", "/entries", f"/{ID}"]
POSTS = ["", "/quote", "/confirm", f"/{ID}/cancel"]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(unserved(Service("wallet")))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"), [*(("GET", path) for path in PARTS), *(("POST", path) for path in POSTS)]
)
async def test_whoever_is_not_signed_in_is_shown_where_to(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    whole = await client.request(method, f"{PATH}{path}", data=FORM if method == "POST" else None)
    assert (whole.status_code, "Sign in</h1>" in whole.text) == (401, True)
    assert HEADERS.items() <= dict(whole.headers).items()
    part = await client.request(method, f"{PATH}{path}", headers={"hx-request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, f"{PATH}?ended=1")


@pytest.mark.parametrize("path", [*POSTS, "/sign-in", "/sign-out"])
@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"origin": "http://elsewhere"}, b"a=b", 403),
        ({"sec-fetch-site": "cross-site"}, b"a=b", 403),
        ({"sec-fetch-site": "same-site"}, b"", 403),
        ({"content-type": "application/json"}, b"{}", 415),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({"content-type": ""}, b"a=b", 415),
        ({"content-encoding": "gzip"}, b"a=b", 415),
        ({}, b"a=" + b"b" * FORM_BYTES_MAX, 413),
    ],
)
async def test_what_no_form_of_the_page_sends_is_refused_before_anything_is_done(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    sent = {"content-type": "application/x-www-form-urlencoded"} | headers
    answer = await client.post(f"{PATH}{path}", content=content, headers=sent)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "content",
    [b"name", b"name=a&name=b", b"a=%ff", b"a=\xff", b"=&=", b"&".join(b"f%d=" % n for n in range(21))],
)
async def test_a_form_that_no_browser_makes_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    sent = {"content-type": "application/x-www-form-urlencoded"}
    answer = await client.post(f"{PATH}/sign-in", content=content, headers=sent)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (422, "invalid-request")


@pytest.mark.parametrize("name", ["", "a b", "<script>", "a" * 65, "\0", "é"])
async def test_a_name_that_nobody_can_have_is_as_wrong_as_a_password(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post(f"{PATH}/sign-in", data={"name": name, "password": "x" * 201})
    assert (answer.status_code, "The name or the password is wrong." in answer.text) == (401, True)
    assert "<script>" not in answer.text.replace('<script src="', "")


async def test_the_json_routes_take_no_forms_and_the_document_has_no_pages(client: httpx.AsyncClient) -> None:
    assert (await client.post("/transfers", data=FORM)).status_code == 415
    assert (await client.post("/transferring", data=FORM)).status_code == 415
    document = (await client.get("/openapi.json")).json()
    assert [path for path in document["paths"] if f"{path}/".startswith(f"{PATH}/")] == []


async def test_while_a_server_is_away_a_page_says_so_and_a_part_is_a_problem(client: httpx.AsyncClient) -> None:
    client.cookies.set("tandem_session", "x")
    whole = await client.get(PATH)
    assert (whole.status_code, "not available" in whole.text) == (503, True)
    part = await client.get(PATH, headers={"hx-request": "true"})
    assert (part.status_code, part.json()["status"]) == (503, 503)


async def test_htmx_is_the_release_that_is_named_with_its_licence_and_every_file_is_our_own(
    client: httpx.AsyncClient,
) -> None:
    assert hashlib.sha256((STATIC / HTMX).read_bytes()).hexdigest() == HTMX_SHA256
    assert "Zero-Clause BSD" in (STATIC / HTMX.replace("min.js", "LICENSE")).read_text()
    text = (await client.get(PATH)).text
    sources = re.findall(r'(?:src|href)="([^"]+)"', text)
    files = [one for one in sources if one.startswith(f"{PATH}/{FILES}/")]
    assert len(files) == 3
    for file in files:
        answer = await client.get(file)
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")
    assert all(one.startswith("data:") for one in set(sources) - set(files))
    assert (await client.get(f"{PATH}/{FILES}/../page.css")).status_code == 404


def test_nothing_of_the_page_needs_what_its_policy_forbids() -> None:
    for template in STATIC.with_name("templates").iterdir():
        text = template.read_text()
        assert (
            re.findall(r"<script(?! src=)|<style|\sstyle=|\son\w+=|hx-on|https?://(?!www\.w3\.org/)", text) == []
        )
        assert re.findall(r"\|\s*safe|autoescape|\sjs:", text) == []
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'")


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, []),
        ({"amount": "1,250", "sender_label": "a" * 100, "receiver_label": "<b>"}, []),
        ({"receiver_id": f" {OTHER} "}, []),
        ({"sender_id": str(OTHER)}, ["sender_id"]),
        ({"sender_id": ""}, ["sender_id"]),
        ({"amount": ""}, ["amount"]),
        ({"amount": "0"}, ["amount"]),
        ({"amount": "1e3"}, ["amount"]),
        ({"amount": "12.505"}, ["amount"]),
        ({"amount": "10,000,000,000.01"}, ["amount"]),
        ({"amount": "9" * 3_000}, ["amount"]),
        ({"receiver_id": "bob"}, ["receiver_id"]),
        ({"receiver_id": "", "amount": "x"}, ["amount", "receiver_id"]),
        ({"sender_label": "a" * 101, "receiver_label": "a\0b"}, ["sender_label", "receiver_label"]),
    ],
)
def test_each_field_that_is_wrong_is_told_by_itself(change: dict[str, str], wrong: list[str]) -> None:
    form = filled(FORM | change, [ACCOUNT])
    assert list(form.errors) == wrong
    assert (form.new is None) == bool(wrong)
    if form.new is not None:
        assert (form.new.amount, form.new.receiver_id) == (125_000 if "1,250" in change.values() else 1_250, OTHER)


@pytest.mark.parametrize(
    ("error", "field", "part"),
    [
        (InsufficientFundsError("", available=500), "amount", "Not enough: 5.00\xa0EUR is available"),
        (
            LimitExceededError("", left=500, what="in one transfer"),
            "amount",
            "5.00\xa0EUR may be sent in one transfer",
        ),
        (LimitExceededError("", left=0, what="x"), "amount", "Nothing more may be sent x"),
        (AccountNotFoundError(), "receiver_id", "There is no such account"),
        (AccountFrozenError(), "receiver_id", "receiver's account is frozen"),
        (ReceiverError("", why="it is in KRW, not in EUR"), "receiver_id", "it is in KRW, not in EUR."),
        (MemberInactiveError(), "form", "not active"),
        (FeeChangedError(), "form", "fee has changed"),
        (KeyReusedError(), "form", "sent already"),
    ],
)
def test_every_refusal_is_a_sentence_where_it_belongs(error: Exception, field: str, part: str) -> None:
    assert isinstance(error, words.REFUSALS)
    told, sentence = words.refusal(error, ACCOUNT)
    assert (told, part in sentence, sentence[-1]) == (field, True, ".")


def test_a_frozen_account_of_one_s_own_is_told_there() -> None:
    assert words.refusal(AccountFrozenError(), replace(ACCOUNT, frozen=True))[0] == "sender_id"


def test_what_people_write_is_shown_as_text() -> None:
    hostile = '"><img src=x onerror=alert(1)>{{ 7 * 7 }}'
    form = filled(FORM | {"receiver_id": hostile, "sender_label": hostile, "amount": hostile}, [ACCOUNT])
    values = {"form": form, "accounts": [ACCOUNT], "asked": transfer(sender_label=hostile), "key": ID}
    text = rendered("asked.html", **values)
    assert "<img" not in text
    assert "49" not in text
    assert text.count("&lt;img src=x onerror") == 7
    assert [name for name in form.errors if f'aria-describedby="{name}-hint {name}-error"' not in text] == []
    assert text.count("autofocus") == 2, "the first wrong field's and the dialog's"


@pytest.mark.parametrize(
    ("status", "reason", "part"),
    [
        (TransferStatus.PENDING, None, "is on its way to …\u20600000000b"),
        (TransferStatus.COMPLETED, None, "has arrived at …\u20600000000b"),
        (TransferStatus.CANCELLED, None, "You took 12.50\xa0EUR back"),
        *(
            (TransferStatus.FAILED, reason, words.WHY_IT_FAILED[reason].replace("'", "&#39;"))
            for reason in FailureReason
        ),
    ],
)
def test_only_a_pending_transfer_is_looked_at_again(
    status: TransferStatus, reason: FailureReason | None, part: str
) -> None:
    text = rendered("state.html", transfer=transfer(status=status, reason=reason))
    assert text.count(part) == 2, "where it is seen and where it is said"
    assert ("every 1s" in text) == ("/cancel" in text) == (status is TransferStatus.PENDING)
    late = rendered("state.html", transfer=transfer(status=status, reason=reason), late=True)
    assert "every 1s" not in late
    assert ("Look again" in late) == (status is TransferStatus.PENDING)


def test_a_member_without_an_account_is_told_so() -> None:
    values: dict[str, object] = {
        "name": "ada",
        "accounts": [],
        "chosen": None,
        "entries": None,
        "pending": [],
        "form": empty(None),
    }
    text = rendered("page.html", **values)
    assert "no account yet" in text
    assert "transfer-form" not in text


def rendered(template: str, **values: object) -> str:
    request = Request({"type": "http", "method": "GET", "path": PATH, "headers": []})
    return bytes(Views().render(request, template, values).body).decode()


def transfer(
    *, status: TransferStatus = TransferStatus.PENDING, reason: FailureReason | None = None, sender_label: str = ""
) -> Transfer:
    return Transfer(
        id=UUID(int=7),
        sender_id=ID,
        receiver_id=OTHER,
        user_id=UUID(int=1),
        currency="EUR",
        amount=1_250,
        fee=5,
        free=False,
        sender_label=sender_label,
        receiver_label="",
        day=date(2026, 11, 29),
        status=status,
        reason=reason,
        requested_at=datetime(2026, 11, 29, tzinfo=UTC),
        ended_at=None,
    )
