"""What a disk was asked to keep, from the kernel's accounts: flushes, and how much is stored below a directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

FLUSHES = ("disk_flushes_steady_per_event", "disk_flushes_backlog_per_1000_events")
"""The figures of cost that are made of flushes."""
_BLOCK = 512
"""What `st_blocks` counts in, whatever the file system (stat(2))."""
_FLUSHES = 15
"""The place of the completed flush requests in a disk's line of statistics (Documentation/block/stat.rst)."""
_DEVICES = Path("/sys/dev/block")


def flushes(place: Path, devices: Path = _DEVICES) -> int | None:
    """How often the disk under `place` was told to keep what it has, since the machine began: an fsync is one.

    By whomever. None where the kernel does not say: it is no disk of its own, the kernel is older than 5.5, or
    this is not Linux.
    """
    try:
        number = place.stat().st_dev
        device = (devices / f"{os.major(number)}:{os.minor(number)}").resolve()
        disk = device.parent if (device / "partition").exists() else device
        return int((disk / "stat").read_text().split()[_FLUSHES])
    except (OSError, IndexError, ValueError):
        return None


def stored_bytes(place: Path) -> int:
    """How much disk the files below `place` take; what goes away meanwhile counts as nothing."""
    total = 0
    for file in place.resolve().rglob("*"):
        with suppress(OSError):
            status = file.lstat()
            total += _BLOCK * status.st_blocks if S_ISREG(status.st_mode) else 0
    return total
