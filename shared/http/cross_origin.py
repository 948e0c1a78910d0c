"""Requests that another site's page has a browser send (CSRF): refused where they may change state.

Browsers say where a request comes from in `Sec-Fetch-Site` (W3C Fetch Metadata), those that do not in `Origin`
(RFC 6454); what says neither is no browser, and has no cookie that it did not mean to send. No token is needed,
and none can be forgotten. Another port of the same host is another origin too: `SameSite` would let it pass.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http.problems import ProblemKind, respond

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OURS: Final = frozenset({"same-origin", "none"})

FOREIGN = ProblemKind(
    403,
    "cross-origin",
    "The request comes from another site",
    example="a page of another origin sent this; only this service's own pages may change state",
)


class CrossOriginGuard:
    """ASGI middleware: 403 for whatever may change state and comes from a page of another origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _READS and _is_foreign(Headers(scope=scope)):
            await respond(scope, FOREIGN, FOREIGN.example)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_foreign(headers: Headers) -> bool:
    sites = headers.getlist("sec-fetch-site")
    if sites:
        return not set(sites) <= _OURS
    origins = headers.getlist("origin")
    return bool(origins) and {_host_of(origin) for origin in origins} != {headers.get("host", "").lower()}


def _host_of(origin: str) -> str | None:
    """Host and port, without the scheme, which a proxy that ends TLS changes; None for `null` and what is none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
