"""The threat-intelligence list: fetched every hour if it has changed; the old one stays when that fails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from services.fraud import domain, store
from shared.errors import TransientError
from shared.jobs import JobContext, Reject, Retry, Signature, chain, group, job
from shared.outside.alerts import Alerts
from shared.outside.conditional_get import Version, get_if_changed
from shared.outside.mail import Mailer

ALERT: Final = "fraud.alert"
BYTES_MAX: Final = 8 * 2**20
_PATIENT: Final = Retry(3, initial_s=2.0, max_s=60.0, on=(TransientError,))


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of the list: `is_new` where it had changed, `unreadable` are lines that were left out."""

    is_new: bool
    entries: int
    unreadable: int = 0


@job(name="fetch-threats", leased=True, queue="io", retries=_PATIENT)
async def fetch_threats(ctx: JobContext) -> Fetched:
    """Put the list that is fetched in the place of the old one, in one transaction.

    Raises `TransientError` for what may pass, `RefusedAnswerError` and `NotAListError` for what is no list.
    """
    settings, now = ctx.parts.settings, datetime.now(UTC)
    if settings.fraud_threats_url is None:
        raise Reject("TANDEM_FRAUD_THREATS_URL is not set any more")
    async with ctx.reading() as connection:
        old = await store.find_list(connection)
    is_of_url = old is not None and old.url == settings.fraud_threats_url
    known = Version(old.etag, old.last_modified) if old is not None and is_of_url else Version()
    document = await get_if_changed(
        settings.fraud_threats_url, known, timeout_s=settings.fraud_threats_timeout_s, bytes_max=BYTES_MAX
    )
    if document is None:
        ctx.tell(store.CHECKED_LIST, {"at": now})
        return Fetched(False, 0 if old is None else old.entries)
    threats = domain.read_list(document.content)
    for statement in (store.DROP_THREATS, store.ADD_THREATS):
        ctx.tell(statement, {"values": list(threats.values)})
    ctx.tell(
        store.RECORD_LIST,
        {
            "number": 1,
            "url": settings.fraud_threats_url,
            "etag": document.version.etag,
            "last_modified": document.version.last_modified,
            "entries": len(threats.values),
            "fetched_at": now,
            "checked_at": now,
        },
    )
    return Fetched(True, len(threats.values), threats.unreadable)


@job(name="tell-of-threats", leased=True, queue="io")
async def tell_of_threats(fetched: list[Any], ctx: JobContext) -> Any:
    """The result; where there is none, raise an alert that the old list stays in force, and `Reject`."""
    [result] = fetched
    if "error" not in result:
        return result
    error = result["error"]
    settings = ctx.parts.settings
    mailer = Mailer(settings, ctx.parts.circuit_breakers.named("smtp")) if settings.alert_mail_to else None
    said = {"error_type": str(error["type"]), "error": str(error["message"])[:500], "job": str(ctx.job_id)}
    await Alerts(settings, mailer).raise_now(ALERT, {"what": "the threat list was not fetched", **said})
    raise Reject(f"the old threat list stays: {error['type']}: {error['message']}")


def refreshed_list() -> Signature:
    """The job that fetches the list, and tells when it could not be fetched."""
    return chain(group(fetch_threats.s(), on_failure="pass"), tell_of_threats.s())
