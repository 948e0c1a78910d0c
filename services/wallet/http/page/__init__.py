"""The page for members: transfers made and watched in a browser, over the same use cases as the JSON routes."""

from services.wallet.http.page.routes import add_page
from services.wallet.http.page.views import PATH

__all__ = ["PATH", "add_page"]
