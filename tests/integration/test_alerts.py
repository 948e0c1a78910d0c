"""Alerts that do not get through harm nobody: not the other ways, not the next alerts, not who raises them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.outside.alerts import _WAITING_MAX, Alerts
from shared.outside.circuit_breaker import CircuitBreaker
from shared.outside.mail import Mailer
from shared.settings import Settings
from tests.integration.letters import webhook
from tests.integration.misbehaving import HEAD, server_that
from tests.integration.smtp import smtp_server
from tests.integration.world import eventually

SAID = {"queue": "notification.order", "error_type": "BusinessError"}
NOBODY = "127.0.0.1:1"


def settings(webhook_url: str | None, smtp_url: str) -> Settings:
    return Settings(
        broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
        alert_webhook_url=webhook_url, alert_mail_to="ops@tandem.example", smtp_url=smtp_url,
    )  # fmt: skip


@asynccontextmanager
async def alerts(webhook_url: str | None, smtp_url: str = "", timeout_s: float = 5.0) -> AsyncIterator[Alerts]:
    made = settings(webhook_url, smtp_url or f"smtp://{NOBODY}")
    mailer = Mailer(made, CircuitBreaker("smtp")) if smtp_url else None
    raised = Alerts(made, mailer, timeout_s)
    delivering = asyncio.create_task(raised.deliver())
    try:
        yield raised
    finally:
        delivering.cancel()
        await asyncio.wait([delivering], timeout=10)


def undelivered(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [line["to"] for line in logs if line["event"] == "alert.not_delivered"]


async def test_one_way_that_is_closed_does_not_close_the_other() -> None:
    async with webhook() as (url, posted), smtp_server() as smtp:
        with capture_logs() as logs:
            async with (
                alerts(url, f"smtp://{NOBODY}") as without_mail,
                alerts(f"http://{NOBODY}/", smtp.url) as without_webhook,
            ):
                without_mail.send("something", SAID)
                without_webhook.send("something", SAID)

                async def done() -> bool:
                    return bool(posted and smtp.mails and len(undelivered(logs)) == 2)

                await eventually(done, "each alert went the way that is open")
    assert posted == [{"alert": "something", **SAID}]
    [mail] = smtp.mails
    assert mail.get_content().splitlines() == ["queue: notification.order", "error_type: BusinessError"]
    assert sorted(undelivered(logs)) == ["mail", "webhook"]
    assert [line["log_level"] for line in logs if line["event"] == "something"] == ["error", "error"]


async def test_a_mail_that_the_server_refuses_is_logged_and_not_sent_again() -> None:
    async with webhook() as (url, posted), smtp_server() as smtp:
        smtp.to_data = "554 No"
        with capture_logs() as logs:
            async with alerts(url, smtp.url) as raised:
                raised.send("something", SAID)

                async def done() -> bool:
                    return bool(posted and undelivered(logs))

                await eventually(done, "the webhook has it, and the log that the mail has not")
    assert smtp.mails == []
    assert len(posted) == 1
    assert undelivered(logs) == ["mail"]


@pytest.mark.parametrize(
    ("answers", "again", "interval_s", "gets_through"),
    [
        pytest.param(HEAD, b"x", 0.05, False, id="its head a byte at a time"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05, False, id="go on, for ever"
        ),
        pytest.param(HEAD, b"x-more: " + b"x" * 1_000 + b"\r\n", 0, False, id="a head without end"),
        pytest.param(b"", b"220 this is no HTTP\r\n", 0.05, False, id="another protocol"),
        pytest.param(b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", b"", 0.05, False, id="look elsewhere"),
        pytest.param(HEAD + b"\r\n", b"\0" * 65_536, 0, True, id="a body without end"),
        pytest.param(HEAD + b"content-encoding: gzip\r\n\r\n", b"no gzip", 0.05, True, id="a body that is none"),
    ],
)
async def test_however_a_webhook_answers_the_next_alert_goes_out(
    answers: bytes, again: bytes, interval_s: float, gets_through: bool
) -> None:
    async with server_that(answers, again, interval_s) as receiver:
        with capture_logs() as logs:
            async with alerts(receiver.url, timeout_s=0.5) as raised:
                for number in range(5):
                    raised.send("something", {**SAID, "number": str(number)})
                assert receiver.asked == [], "who raises an alert does not wait for it"

                async def all_tried() -> bool:
                    return len(receiver.asked) == 5 and len(undelivered(logs)) == (0 if gets_through else 5)

                await eventually(all_tried, "all five were tried")


async def test_more_alerts_than_may_wait_are_lines_in_the_log() -> None:
    raised = Alerts(settings(f"http://{NOBODY}/", f"smtp://{NOBODY}"), None)
    with capture_logs() as logs:
        for _ in range(_WAITING_MAX + 3):
            raised.send("something", SAID)
    assert len(undelivered(logs)) == 3
    assert len([line for line in logs if line["event"] == "something"]) == _WAITING_MAX + 3


async def test_what_cannot_be_written_as_json_or_mail_is_logged_and_the_next_alert_goes_out() -> None:
    async with webhook() as (url, posted), smtp_server() as smtp:
        with capture_logs() as logs:
            async with alerts(url, smtp.url) as raised:
                raised.send("something", {**SAID, "error": "\ud800"})
                raised.send("something", SAID)

                async def done() -> bool:
                    return bool(posted and smtp.mails and len(undelivered(logs)) == 2)

                await eventually(done, "the second one is delivered")
    assert posted == [{"alert": "something", **SAID}]
