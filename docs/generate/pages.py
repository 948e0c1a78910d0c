"""Which documents are generated, and by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from docs.generate import event_picture, settings_page

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "settings.md": settings_page.render,
    "pictures/how-an-event-travels.svg": event_picture.render,
}
"""File below `docs/` → the function that returns its text."""
