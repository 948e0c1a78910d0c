"""Alerts: a log line at level ERROR and, where they are set, one POST of JSON to a webhook and one mail.

At most once: what does not get through is logged and not sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from email.utils import make_msgid, parseaddr

import httpx
import structlog

from shared.errors import TandemError
from shared.outside.mail import Mail, Mailer, domain_of
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_WEBHOOK_TIMEOUT_S = 5.0


class Alerts:
    """Sends to the log, to `alert_webhook_url`, and through `mailer`, if there is one, to `alert_mail_to`."""

    def __init__(self, settings: Settings, mailer: Mailer | None) -> None:
        self._webhook_url = settings.alert_webhook_url
        self._mail_to = parseaddr(settings.alert_mail_to)
        self._mailer = mailer

    async def send(self, alert: str, said: Mapping[str, str]) -> None:
        """`alert` names what it is about, `said` the rest; no payloads in it."""
        _log.error(alert, **said)
        await asyncio.gather(self._post(alert, said), self._mail(alert, said))

    async def send_all(self, alert: str, said: Sequence[Mapping[str, str]]) -> None:
        """Send several side by side: one that does not get through holds up no other."""
        await asyncio.gather(*(self.send(alert, one) for one in said))

    async def _post(self, alert: str, said: Mapping[str, str]) -> None:
        if self._webhook_url is None:
            return
        try:
            async with httpx.AsyncClient(timeout=_WEBHOOK_TIMEOUT_S) as client:
                (await client.post(self._webhook_url, json={"alert": alert, **said})).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _log.warning("alert.not_delivered", alert=alert, to="webhook", error=repr(error))

    async def _mail(self, alert: str, said: Mapping[str, str]) -> None:
        if self._mailer is None:
            return
        name, address = self._mail_to
        mail = Mail(
            message_id=make_msgid(domain=domain_of(self._mailer.sender)),
            address=address,
            name=name,
            subject=f"{alert} {said.get('error_type', '')}",
            text="".join(f"{what}: {value}\n" for what, value in said.items()),
        )
        try:
            await self._mailer.send(mail)
        except TandemError as error:
            _log.warning("alert.not_delivered", alert=alert, to="mail", error=repr(error))
