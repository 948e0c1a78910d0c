"""Replies on the wire: CloudEvents of two types, caused by the request that they answer."""

from __future__ import annotations

from typing import Any, Final

from shared.envelope import Envelope

ANSWERED: Final = "reply.answered"
"""`data` is the answer."""
REFUSED: Final = "reply.refused"
"""`data` says why nothing was carried out: `reason`, the error's class, and `detail`, its sentence."""
_DETAIL_CHARACTERS_MAX = 1_000


def answered(service: str, request: Envelope, data: Any, traceparent: str | None) -> bytes:
    """Raises `EventTooLargeError`."""
    return _reply(service, request, ANSWERED, data, traceparent)


def refused(service: str, request: Envelope, error: Exception, traceparent: str | None) -> bytes:
    """Why not."""
    data = {"reason": type(error).__name__, "detail": str(error)[:_DETAIL_CHARACTERS_MAX]}
    return _reply(service, request, REFUSED, data, traceparent)


def _reply(service: str, request: Envelope, reply_type: str, data: Any, traceparent: str | None) -> bytes:
    return Envelope(
        source=f"/services/{service}",
        type=reply_type,
        subject=request.subject,
        traceparent=traceparent,
        correlationid=request.correlationid or request.id,
        causationid=request.id,
        data=data,
    ).encode()
