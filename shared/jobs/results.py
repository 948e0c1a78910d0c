"""Results of leased steps that are too large for a row: in the object storage, and named in the row (Claim Check).

The object is stored and read back before its step ends, and the statement that ends the step names it: no result
is there without its object. An attempt that is cut off between the two leaves an object that no row names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

import orjson

from shared.jobs.arguments import RESULT_BYTES_MAX
from shared.jobs.errors import ResultTooLargeError
from shared.outside.circuit_breaker import CircuitBreakers
from shared.outside.objects import BREAKER, OBJECT_BYTES_MAX, Bucket, ObjectStore
from shared.settings import Settings

STORED_BYTES_MAX: Final = 8 * 2**20
"""Of one result. Its JSON is read as a whole, by whoever answers with it or is given it."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """Stands where a result would: the object that it is, `bytes` of JSON."""

    key: str
    sha256: str
    bytes: int

    @property
    def document(self) -> dict[str, Any]:
        """As the step's row has it."""
        return asdict(self)


def bytes_max(settings: Settings) -> int:
    """The most bytes of JSON that a leased step may return."""
    return RESULT_BYTES_MAX if settings.object_store_url is None else STORED_BYTES_MAX


def is_large(result: str) -> bool:
    """Whether this JSON text has no place in a row."""
    return 4 * len(result) > RESULT_BYTES_MAX and len(result.encode()) > RESULT_BYTES_MAX


def value_of(result: Any, document: Mapping[str, Any] | None) -> Any:
    """What a row has: the result itself, or the object that it is."""
    return result if document is None else StoredResult(**document)


def stored_in(values: Sequence[Any]) -> list[StoredResult]:
    """Those of `values`, and of the lists among them, that are objects."""
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return [one for one in flat if isinstance(one, StoredResult)]


def filled(value: Any, loaded: Mapping[StoredResult, Any]) -> Any:
    """`value`, or the list, with what was loaded in the place of each object."""
    if isinstance(value, list):
        return [filled(one, loaded) if isinstance(one, StoredResult) else one for one in value]
    return loaded[value] if isinstance(value, StoredResult) else value


class LargeResults:
    """One process's way to them. Raises `ConfigurationError` where no object storage is set."""

    def __init__(self, settings: Settings, breakers: CircuitBreakers) -> None:
        self._objects = ObjectStore(Bucket.of(settings), breakers.named(BREAKER))

    async def store(self, job_id: UUID, step_id: UUID, attempt: int, result: str) -> StoredResult:
        """Store the JSON text that an attempt returned. Raises as `ObjectStore.put_verified` does."""
        key, content = f"results/{job_id}/{step_id}-{attempt}.json", result.encode()
        return StoredResult(key, await self._objects.put_verified(key, content), len(content))

    async def load(self, wanted: Collection[StoredResult]) -> dict[StoredResult, Any]:
        """The values of these. Raises `ResultTooLargeError` for too many bytes at once, and as `get_verified`."""
        size = sum(one.bytes for one in wanted)
        if size > OBJECT_BYTES_MAX:
            raise ResultTooLargeError(f"{size:,} bytes of results together, over the {OBJECT_BYTES_MAX:,} allowed")
        contents = [await self._objects.get_verified(one.key, one.sha256) for one in wanted]
        values = await asyncio.to_thread(lambda: [orjson.loads(content) for content in contents])
        return dict(zip(wanted, values, strict=True))
