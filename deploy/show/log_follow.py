"""Prints the logs of several processes as they grow, each line with its process's name."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from deploy.show.printable import printable

_POLL_S = 0.3


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file; none when there is no file."""
    try:
        return path.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def print_logs(files: Mapping[str, Path], out: TextIO, *, follow: bool, lines: int = 50) -> None:
    """Print the end of each log, then, with `follow`, what is added until interrupted.

    A log that was rotated is read on from the start of its successor.
    """
    width = max((len(name) for name in files), default=0)
    places = {name: _size(path) for name, path in files.items()}
    for name, path in files.items():
        for line in tail(path, lines):
            out.write(f"{name:<{width}} | {printable(line)}\n")
    out.flush()
    while follow:
        time.sleep(_POLL_S)
        for name, path in files.items():
            text, places[name] = _added(path, places[name])
            for line in text.splitlines():
                out.write(f"{name:<{width}} | {printable(line)}\n")
        out.flush()


def _added(path: Path, place: int) -> tuple[str, int]:
    """What was written after byte `place`, up to the last whole line, and where that ends."""
    size = _size(path)
    if size < place:  # rotated
        place = 0
    if size == place:
        return "", place
    with path.open("rb") as file:
        file.seek(place)
        added = file.read(size - place)
    whole = added[: added.rfind(b"\n") + 1]
    return whole.decode(errors="replace"), place + len(whole)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
