"""Alerts: a log line at level ERROR and, where they are set, one POST of JSON to a webhook and one mail.

At most once: what does not get through is logged and not sent again. Who raises an alert never waits for it:
however slow, endless or wrong an answer is, it costs no more than some seconds of a task beside the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from email.utils import make_msgid, parseaddr

import httpx
import structlog

from shared.outside.mail import Mail, Mailer, domain_of
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_WEBHOOK_TIMEOUT_S = 5.0
_WAITING_MAX = 100
_AT_ONCE = 2


class NotAcceptedError(Exception):
    """The webhook answered something else than that it was done."""


class Alerts:
    """Sends to the log, to `alert_webhook_url`, and through `mailer`, if there is one, to `alert_mail_to`.

    `deliver` has to run beside. At most `_WAITING_MAX` alerts wait for it; one more stays a line in the log.
    """

    def __init__(
        self, settings: Settings, mailer: Mailer | None, webhook_timeout_s: float = _WEBHOOK_TIMEOUT_S
    ) -> None:
        """`webhook_timeout_s` is what a POST takes at most, from the look-up of the name to the status."""
        self._webhook_url = settings.alert_webhook_url
        self._webhook_timeout_s = webhook_timeout_s
        self._mail_to = parseaddr(settings.alert_mail_to)
        self._mailer = mailer
        self._waiting: asyncio.Queue[tuple[str, Mapping[str, str]]] = asyncio.Queue(_WAITING_MAX)

    def send(self, alert: str, said: Mapping[str, str]) -> None:
        """Log it, and have it delivered. `alert` names what it is about, `said` the rest; no payloads in it."""
        _log.error(alert, **said)
        try:
            self._waiting.put_nowait((alert, said))
        except asyncio.QueueFull:
            _log.warning("alert.not_delivered", alert=alert, to="anybody", error="too many wait")

    async def deliver(self) -> None:
        """Deliver what is raised, a few at once; never returns by itself. Cancelled, it drops what waits."""
        # One client for all: to read the authorities that it trusts takes 40 ms of the event loop's time.
        async with httpx.AsyncClient(timeout=self._webhook_timeout_s) as client, asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(self._deliver_in_turn(client))

    async def _deliver_in_turn(self, client: httpx.AsyncClient) -> None:
        while True:
            alert, said = await self._waiting.get()
            await self._deliver(client, alert, said)

    async def raise_now(self, alert: str, said: Mapping[str, str]) -> None:
        """Log it and try to deliver it, once, for who may wait some seconds; `deliver` need not run beside."""
        _log.error(alert, **said)
        async with httpx.AsyncClient(timeout=self._webhook_timeout_s) as client:
            await self._deliver(client, alert, said)

    async def _deliver(self, client: httpx.AsyncClient, alert: str, said: Mapping[str, str]) -> None:
        await asyncio.gather(
            self._attempt("webhook", alert, self._post(client, alert, said)),
            self._attempt("mail", alert, self._mail(alert, said)),
        )

    async def _attempt(self, to: str, alert: str, delivery: Awaitable[None]) -> None:
        try:
            await delivery
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the next is delivered
            _log.warning("alert.not_delivered", alert=alert, to=to, error=repr(error)[:500])

    async def _post(self, client: httpx.AsyncClient, alert: str, said: Mapping[str, str]) -> None:
        if not self._webhook_url:
            return
        async with (
            asyncio.timeout(self._webhook_timeout_s),  # the client's own begins anew with every byte
            client.stream("POST", self._webhook_url, json={"alert": alert, **said}) as answer,
        ):
            # No more of the answer is read, so it costs nothing how long it is. Its URL may be a secret.
            if not answer.is_success:
                raise NotAcceptedError(f"status {answer.status_code}")

    async def _mail(self, alert: str, said: Mapping[str, str]) -> None:
        if self._mailer is None:
            return
        name, address = self._mail_to
        await self._mailer.send(
            Mail(
                message_id=make_msgid(domain=domain_of(self._mailer.sender)),
                address=address,
                name=name,
                subject=f"{alert} {said.get('error_type', '')}",
                text="".join(f"{what}: {value}\n" for what, value in said.items()),
            )
        )
