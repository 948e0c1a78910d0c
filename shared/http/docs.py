"""The page `/docs`: Swagger UI for an application's OpenAPI document, without a network.

FastAPI's own page loads Swagger UI from elsewhere. This one's files come with a package, and its policy keeps a
browser from asking any other server.
"""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

_PAGE: Final = "/docs"
_FILES: Final = "/docs/files"
_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)


def add_docs(app: FastAPI) -> None:
    """Serve the page and its files. The application must be made without a page of its own (`docs_url=None`)."""

    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            title=f"{app.title} - Swagger UI",
            openapi_url=f"{root}{app.openapi_url}",
            swagger_js_url=f"{root}{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{root}{_FILES}/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},  # it would send the document to a validator elsewhere
        )
        page.headers["content-security-policy"] = _POLICY
        return page

    app.add_route(_PAGE, docs, include_in_schema=False)
    app.mount(_FILES, StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-files")
