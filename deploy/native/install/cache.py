"""Big downloads, kept once per user and shared between clones.

An entry appears whole or not at all: it is built in a directory beside its place and renamed.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.native.environment import of_children


def cache_root() -> Path:
    """`$TANDEM_CACHE`, or ~/.cache/tandem."""
    chosen = os.environ.get("TANDEM_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "tandem"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time do `name`; the others wait. A killed holder frees the lock."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """Return the cache's directory `name`, made by `build(directory)` when it is not there.

    Whatever `build` raises is passed on, and nothing of what it wrote stays.
    """
    place = cache_root() / name
    if place.is_dir():
        return place
    with locked(name):
        if place.is_dir():  # another run built it while this one waited
            return place
        _remove_leftovers(name)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=cache_root()))
        try:
            unfinished.chmod(0o755)
            build(unfinished)
            unfinished.rename(place)
        except BaseException:
            remove_tree(unfinished)
            raise
    return place


def _remove_leftovers(name: str) -> None:
    """Clear what a killed build left; called under the lock of `name`."""
    for leftover in cache_root().glob(f".{name}.*"):
        if leftover.is_dir():
            remove_tree(leftover)


def remove_tree(path: Path) -> None:
    """Delete a directory; with sudo where root made it. Mounts below it are left alone."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists() and os.geteuid() != 0:
        command = ["sudo", "-n", "rm", "-rf", "--one-file-system", str(path)]
        subprocess.run(command, env=of_children(), check=False)
