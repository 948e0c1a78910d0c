"""The routes of the page for members. They hold no rules: the use cases decide, and `words` says it plainly."""

from __future__ import annotations

from starlette.applications import Starlette

from services.wallet.domain.fees import FeeRules
from services.wallet.http.page.door import Door, View
from services.wallet.http.page.looking import Looking
from services.wallet.http.page.sending import Sending
from services.wallet.http.page.views import FILES, PATH, Files, Views
from services.wallet.http.sign_in import SignIn
from shared.process import Parts


def add_page(app: Starlette, parts: Parts, fees: FeeRules, signing: SignIn) -> None:
    """Serve the page and its files. It is for people: the OpenAPI document has none of its routes."""
    views = Views()
    door = Door(signing, views, secure=parts.settings.session_cookie_secure)
    looking, sending = Looking(parts, views, door), Sending(parts, fees, views, door)
    routes: tuple[tuple[str, str, View], ...] = (
        ("GET", "", looking.show),
        ("POST", "", sending.send),
        ("POST", "/sign-in", door.sign_in),
        ("POST", "/sign-out", door.sign_out),
        ("POST", "/quote", sending.quote),
        ("POST", "/confirm", sending.confirm),
        ("GET", "/accounts", looking.list_accounts),
        ("GET", "/entries", looking.list_entries),
        ("GET", "/{transfer_id:uuid}", looking.watch),
        ("POST", "/{transfer_id:uuid}/cancel", looking.cancel),
    )
    for method, path, view in routes:
        app.add_route(f"{PATH}{path}", door.guarded(view), methods=[method], include_in_schema=False)
    app.mount(f"{PATH}/{FILES}", Files(), name="page-files")
