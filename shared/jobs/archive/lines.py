"""JSON lines, compressed as they come: what an archived object holds.

A line is `{"table": …, "row": {…}}`, as PostgreSQL writes the row, so that `json_populate_record` makes it again.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from typing import Final

from shared.errors import PermanentError
from shared.outside.objects import OBJECT_BYTES_MAX

_GZIP: Final = zlib.MAX_WBITS | 16
"""The form of gzip (RFC 1952), with no time in it: the same lines are the same bytes."""
_UNPACKED_BYTES_MAX: Final = 64 * OBJECT_BYTES_MAX


class PortionTooLargeError(PermanentError):
    """What must stand in one object, because it goes together, is too large for one."""


class Lines:
    """The lines of one object. `count` is how many they are."""

    def __init__(self) -> None:
        self.count = 0
        self._size = 0
        self._parts: list[bytes] = []
        self._packing = zlib.compressobj(level=6, wbits=_GZIP)

    async def add(self, lines: Sequence[str]) -> None:
        """Add lines, in a thread; a line break in one, which JSON has between its parts only, becomes a blank.

        Raises `PortionTooLargeError`.
        """
        text = "".join(f"{line.replace(chr(10), ' ')}\n" for line in lines).encode()
        self._keep(await asyncio.to_thread(self._packing.compress, text))
        self.count += len(lines)

    def close(self) -> bytes:
        """The object. Raises `PortionTooLargeError`."""
        self._keep(self._packing.flush())
        return b"".join(self._parts)

    def _keep(self, packed: bytes) -> None:
        self._parts.append(packed)
        self._size += len(packed)
        if self._size > OBJECT_BYTES_MAX:
            raise PortionTooLargeError(f"{self.count} lines are over {OBJECT_BYTES_MAX:,} bytes")


def unpacked(content: bytes) -> list[str]:
    """The lines of an object. Raises `ValueError` for what is no such object, or is over 4 GiB when unpacked."""
    unpacking = zlib.decompressobj(wbits=_GZIP)
    try:
        text = unpacking.decompress(content, _UNPACKED_BYTES_MAX)
    except zlib.error as error:
        raise ValueError(f"not in the form of gzip: {error}") from None
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("cut short, too large, or followed by something else")
    return text.decode().split("\n")[:-1]  # not `splitlines`, for which there are eight other breaks
