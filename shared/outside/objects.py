"""Objects in an S3-compatible storage: put, read back, deleted, listed; bounded in bytes and in time.

Each request is signed with the SHA-256 of what it carries (AWS Signature Version 4), so that a put is refused
which arrives otherwise than it was sent. The client, `obstore`, is imported with the first request: who stores
nothing does not pay for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Self

from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.outside.circuit_breaker import CircuitBreaker
from shared.settings import Settings

if TYPE_CHECKING:
    from obstore.store import S3Store

BREAKER: Final = "object-storage"
"""The circuit breaker of a process for the storage."""
OBJECT_BYTES_MAX: Final = 32 * 2**20
"""No more than S3Proxy takes in one signed request."""
_CONNECT_MAX_S: Final = 5.0
_SAID_MAX: Final = 300


class ObjectNotFoundError(PermanentError):
    """There is no object of this key."""


class ObjectRefusedError(PermanentError):
    """The storage will not do it, now or later: wrong keys, no such bucket, or an object that is too large."""


class ObjectDamagedError(TransientError):
    """What was read back is not what was put."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Where objects are, and the keys with which requests are signed; `timeout_s` is for one object."""

    url: str
    name: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    timeout_s: float = 30.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises `ConfigurationError` where no storage is set."""
        access, secret = settings.object_store_access_key, settings.object_store_secret_key
        if settings.object_store_url is None or access is None or secret is None:
            raise ConfigurationError("TANDEM_OBJECT_STORE_URL is not set")
        return cls(
            url=settings.object_store_url,
            name=settings.object_store_bucket,
            access_key=access.get_secret_value(),
            secret_key=secret.get_secret_value(),
            region=settings.object_store_region,
            timeout_s=settings.object_store_timeout_s,
        )


class ObjectStore:
    """One bucket, through a circuit breaker. The keys to it appear in no error.

    Every method raises `ObjectRefusedError`, and `TransientError` for what may pass: the network, a time-out, 5xx.
    """

    def __init__(self, bucket: Bucket, breaker: CircuitBreaker) -> None:
        self._bucket = bucket
        self._breaker = breaker
        self._store: S3Store | None = None

    async def put(self, key: str, content: bytes) -> None:
        """Store an object, in the place of one that may be there under this key."""
        if len(content) > OBJECT_BYTES_MAX:
            raise ObjectRefusedError(f"{key} has {len(content):,} bytes, over the {OBJECT_BYTES_MAX:,} allowed")
        async with self._asked(f"put {key}") as store:
            try:
                # In one request: parts that are never completed would stay in the bucket, hidden and paid for.
                await store.put_async(key, content, use_multipart=False)
            except FileNotFoundError:
                raise ObjectRefusedError(f"there is no bucket {self._bucket.name}") from None

    async def get(self, key: str) -> bytes:
        """The whole object. Raises `ObjectNotFoundError`."""
        async with self._asked(f"get {key}") as store:
            try:
                found = await store.get_async(key)
            except FileNotFoundError:
                raise ObjectNotFoundError(f"there is no object {key}") from None
            size = found.meta["size"]
            if size > OBJECT_BYTES_MAX:
                raise ObjectRefusedError(f"{key} has {size:,} bytes, over the {OBJECT_BYTES_MAX:,} allowed")
            return bytes(await found.bytes_async())

    async def put_verified(self, key: str, content: bytes) -> str:
        """Store an object, read it back, and return its SHA-256 in hexadecimal digits.

        Raises `ObjectDamagedError` where what came back is something else.
        """
        digest = sha256(content).hexdigest()
        await self.put(key, content)
        await self.get_verified(key, digest)
        return digest

    async def get_verified(self, key: str, digest: str) -> bytes:
        """The whole object, if it has this SHA-256. Raises `ObjectNotFoundError`, `ObjectDamagedError`."""
        content = await self.get(key)
        if sha256(content).hexdigest() != digest:
            raise ObjectDamagedError(f"{key} is not what was put: its {len(content):,} bytes have another SHA-256")
        return content

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        async with self._asked(f"delete {key}") as store:
            try:
                await store.delete_async(key)
            except FileNotFoundError:
                return

    async def list_keys(self, prefix: str, count_max: int) -> list[str]:
        """The keys below a prefix that ends at a slash, in order, at most so many."""
        keys: list[str] = []
        async with self._asked(f"list {prefix}") as store:
            async for page in store.list(prefix):
                keys += [found["path"] for found in page]
                if len(keys) >= count_max:
                    break
        return sorted(keys)[:count_max]

    @asynccontextmanager
    async def _asked(self, what: str) -> AsyncIterator[S3Store]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        timeout_s = self._bucket.timeout_s
        async with self._breaker.call():
            try:
                async with asyncio.timeout(timeout_s):
                    yield self._opened()
            except TimeoutError:
                raise TransientError(f"object storage: no answer within {timeout_s:g} s: {what}") from None
            except (PermissionDeniedError, UnauthenticatedError):
                raise ObjectRefusedError(f"object storage: not allowed: {what}") from None
            except BaseError as error:
                # Not chained: nobody promises what else is in there.
                raise TransientError(f"object storage: {what}: {self._said(error)}") from None

    def _said(self, error: Exception) -> str:
        said = f"{type(error).__name__}: {error}".partition("\n\nDebug source")[0]
        for key in (self._bucket.secret_key, self._bucket.access_key):
            said = said.replace(key, "…")
        return said[:_SAID_MAX]

    def _opened(self) -> S3Store:
        if self._store is None:
            from obstore.store import S3Store

            bucket, timeout = self._bucket, timedelta(seconds=self._bucket.timeout_s)
            self._store = S3Store(
                bucket.name,
                endpoint=bucket.url.rstrip("/"),
                region=bucket.region,
                access_key_id=bucket.access_key,
                secret_access_key=bucket.secret_key,
                virtual_hosted_style_request=False,
                disable_bulk_delete=True,  # not every storage has it
                client_options={
                    "allow_http": bucket.url.startswith("http://"),
                    "timeout": timeout,
                    "connect_timeout": min(timeout, timedelta(seconds=_CONNECT_MAX_S)),
                },
                retry_config={"max_retries": 1, "retry_timeout": timeout},
            )
        return self._store
