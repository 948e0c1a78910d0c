"""How the page is rendered, and the policy that its responses are sent with."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from services.wallet.http.page.words import WHY_IT_FAILED, moment, money, short

PATH: Final = "/transfer"
FILES: Final = "files"
HTMX: Final = "htmx-2.0.11.min.js"
"""htmx 2.0.11 as npm has it (`htmx.org`), under the Zero-Clause BSD licence that stands beside it."""
HAPPENED: Final = "transfer-ended"
"""The event in the browser that has balances and entries shown anew."""
_NO_SNIFFING: Final = {"x-content-type-options": "nosniff"}
# Without any referrer (`no-referrer`) browsers would send `Origin: null` with forms, which the guard refuses.
HEADERS: Final = {
    **_NO_SNIFFING,
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "same-origin",
}


class Views:
    """Renders the templates of this package; whatever they are given is escaped."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("services.wallet.http.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(money=money, short=short, moment=moment)
        self._templates.globals.update(htmx=HTMX, happened=HAPPENED, why=WHY_IT_FAILED)
        self._templates.globals.update(late=False, quote=None, wrong=None)

    def render(
        self,
        request: Request,
        template: str,
        values: Mapping[str, object] | None = None,
        status: int = HTTPStatus.OK,
        *,
        retry_after_s: int | None = None,
    ) -> Response:
        """The response that a template makes of these values."""
        here = path_of(request)
        values = {**(values or {}), "here": here, "files": f"{here}/{FILES}"}
        content = self._templates.get_template(template).render(values)
        extra = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
        return HTMLResponse(content, status, {**HEADERS, **extra})


class Files(StaticFiles):
    """The page's scripts and style; browsers ask whether they have changed."""

    def __init__(self) -> None:
        super().__init__(packages=[("services.wallet.http.page", "static")])

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update({**_NO_SNIFFING, "cache-control": "no-cache"})
        return response


def path_of(request: Request) -> str:
    """Where the page is, for a browser."""
    return f"{request.scope.get('root_path', '').rstrip('/')}{PATH}"


def is_part(request: Request) -> bool:
    """Whether htmx asks, for a part of the page."""
    return "hx-request" in request.headers
