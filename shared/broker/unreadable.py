"""What both adapters need for messages that their clients cannot read: foreign clients write what they like."""

from __future__ import annotations

from typing import Any, Final, SupportsIndex, overload

UNREADABLE: Final = "tandem-unreadable"
"""Header of a letter of which a part could not be read: why, and which part."""


class TolerantBytes(bytes):
    """Bytes whose parts, too, decode with what is not UTF-8 escaped, whatever a parser asks for."""

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice[Any, Any, Any], /) -> bytes: ...
    def __getitem__(self, key: Any, /) -> Any:
        part = super().__getitem__(key)
        return part if isinstance(part, int) else TolerantBytes(part)

    def decode(self, encoding: str = "utf-8", _errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")
