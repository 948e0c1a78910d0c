"""Where the repository's own files are."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
"""The root of the checkout: `python -m services.…` is found from here."""


_PASSABLE = 0o755


def make_directory(place: Path) -> Path:
    """Make a directory, and those above it that are missing, that every user can pass, whatever the umask is.

    One that is there already, and is this user's, is opened: under another umask an earlier version made it.
    """
    if not place.parent.exists():
        make_directory(place.parent)
    place.mkdir(exist_ok=True)
    known = place.stat()
    if known.st_mode & _PASSABLE != _PASSABLE and known.st_uid == os.geteuid():
        place.chmod(known.st_mode & 0o7777 | _PASSABLE)
    return place
