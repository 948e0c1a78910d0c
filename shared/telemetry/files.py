"""Files of OTLP JSON lines that do not grow without end, and that nobody has to wait for or fail for."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from io import FileIO, RawIOBase, TextIOBase
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

BYTES_MAX = 10 * 1_024 * 1_024
"""Of one file, as of a log."""
OLDER_MAX = 2
"""How many full files are kept beside the one that is written: `traces-order.jsonl.1` is the newer of them."""
_SAY_INTERVAL_S = 60.0


class RotatingLines(TextIOBase):
    """What an exporter writes its lines to: appends them to a file, and begins a new one when that is full.

    What cannot be written (the disk is full, the directory is gone) is dropped whole: a line is there or is not.
    The log says so once a minute, and the next line is tried again. Nothing stays open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dropped = 0
        self._say_at = 0.0

    def write(self, text: str) -> int:
        """Append whole lines; never raises for what the file system says. How much is written: all or nothing."""
        try:
            self._append(text.encode())
        except OSError as error:
            self._dropped += 1
            if time.monotonic() >= self._say_at:
                self._say_at = time.monotonic() + _SAY_INTERVAL_S
                _log.warning("telemetry.dropped", file=str(self._path), error=str(error), batches=self._dropped)
            return 0
        self._dropped = 0
        return len(text)

    def _append(self, lines: bytes) -> None:
        if len(lines) > BYTES_MAX:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        with self._open() as file:
            if file.tell() + len(lines) <= BYTES_MAX:
                _write_whole(file, lines)
                return
        self._rotate()
        with self._open() as file:
            _write_whole(file, lines)

    def _open(self) -> FileIO:
        try:
            return FileIO(self._path, "ab")
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return FileIO(self._path, "ab")

    def _rotate(self) -> None:
        """The oldest is deleted, not replaced: what takes another file's place ext4 writes out at once, 10 MB in
        front of the next flush of a database's log; most of what is deleted soon is never written out."""
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, OLDER_MAX + 1))]
        names[-1].unlink(missing_ok=True)
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with suppress(FileNotFoundError):
                newer.replace(older)


def _write_whole(file: FileIO, lines: bytes) -> None:
    """All of it or nothing."""
    end = file.tell()
    try:
        _write_all(file, lines)
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


def _write_all(file: RawIOBase, data: bytes) -> None:
    """A disk that is nearly full takes a part and says nothing."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]
