"""Alerts that do not get through harm nobody, and hold up nothing for long."""

from __future__ import annotations

from structlog.testing import capture_logs

from shared.outside.alerts import Alerts
from shared.outside.circuit_breaker import CircuitBreaker
from shared.outside.mail import Mailer
from shared.settings import Settings
from tests.integration.letters import webhook
from tests.integration.smtp import smtp_server

SAID = {"queue": "notification.order", "error_type": "BusinessError"}


def settings(webhook_url: str, smtp_url: str) -> Settings:
    return Settings(
        broker="rabbit", http_port=1, postgres_dsn="-", redis_url="-", rabbit_url="-",
        alert_webhook_url=webhook_url, alert_mail_to="ops@tandem.example", smtp_url=smtp_url,
    )  # fmt: skip


def alerts(webhook_url: str, smtp_url: str) -> Alerts:
    made = settings(webhook_url, smtp_url)
    return Alerts(made, Mailer(made, CircuitBreaker("smtp")))


async def test_one_way_that_is_closed_does_not_close_the_other() -> None:
    nobody = "127.0.0.1:1"
    async with webhook() as (url, posted), smtp_server() as smtp:
        with capture_logs() as logs:
            await alerts(url, f"smtp://{nobody}").send("something", SAID)
            await alerts(f"http://{nobody}/", smtp.url).send("something", SAID)
    assert posted == [{"alert": "something", **SAID}]
    [mail] = smtp.mails
    assert mail.get_content().splitlines() == ["queue: notification.order", "error_type: BusinessError"]
    undelivered = [line["to"] for line in logs if line["event"] == "alert.not_delivered"]
    assert undelivered == ["mail", "webhook"]
    assert [line["log_level"] for line in logs if line["event"] == "something"] == ["error", "error"]


async def test_a_mail_that_the_server_refuses_is_logged_and_not_sent_again() -> None:
    async with webhook() as (url, posted), smtp_server() as smtp:
        smtp.to_data = "554 No"
        with capture_logs() as logs:
            await alerts(url, smtp.url).send("something", SAID)
    assert smtp.mails == []
    assert len(posted) == 1
    assert [line["to"] for line in logs if line["event"] == "alert.not_delivered"] == ["mail"]
