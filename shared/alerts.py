"""Alerts: a log line at level ERROR and, where a webhook is set, one POST of JSON.

At most once: what the webhook does not take is logged and not sent again.
"""

from __future__ import annotations

import httpx
import structlog

_log = structlog.get_logger(__name__)

_TIMEOUT_S = 5.0


async def raise_alert(webhook_url: str | None, alert: str, said: dict[str, str]) -> None:
    """`alert` names what it is about, `said` the rest; no payloads in it."""
    _log.error(alert, **said)
    if webhook_url is None:
        return
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            (await client.post(webhook_url, json={"alert": alert, **said})).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _log.warning("alert.not_delivered", alert=alert, error=repr(error))
