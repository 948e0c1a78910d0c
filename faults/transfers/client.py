"""Asks the wallet over HTTP, as its members and its administrator do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self
from uuid import UUID

import aiohttp
import orjson

from experiment.side import StalledError
from faults.transfers.checker import Asked

ACCEPTED, REFUSED = 202, 409
_DONE = 200
_TIMEOUT_S = 5.0


class WalletClient:
    """A client of one wallet; an async context manager. Sessions are given with each request, as a cookie."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def sign_in(self, name: str, password: str) -> str:
        """The session, as a cookie. Raises `StalledError` where there is none."""
        document = {"name": name, "password": password}
        async with self._session.post(f"{self._url}/session", json=document) as answer:
            if answer.status != _DONE:
                raise StalledError(f"{name} cannot sign in at the wallet: {await answer.text()}")
            return answer.headers["set-cookie"].partition(";")[0]

    async def administer(self, cookie: str, method: str, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """The answer's document, {} where it has none. Raises `StalledError` where it is refused."""
        document = {"reason": "faults are played", **body}
        url = f"{self._url}/admin/{path}"
        async with self._session.request(method, url, json=document, headers={"cookie": cookie}) as answer:
            content = await answer.read()
            if not answer.ok:
                raise StalledError(f"{method} {path} at the wallet: {content.decode(errors='replace')}")
        return dict(orjson.loads(content)) if content else {}

    async def transfer(self, cookie: str, wish: Asked, key: str) -> tuple[int | None, UUID | None]:
        """The status, and the transfer's id where it was accepted; None where nobody answered."""
        body = {
            "sender_id": str(wish.sender_id),
            "receiver_id": str(wish.receiver_id),
            "amount": wish.amount,
        }
        headers = {"idempotency-key": key, "cookie": cookie}
        try:
            async with self._session.post(f"{self._url}/transfers", json=body, headers=headers) as answer:
                document = orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError):
            return None, None
        return answer.status, UUID(document["id"]) if answer.status == ACCEPTED else None

    async def take_back(self, cookie: str, transfer_id: UUID) -> bool:
        """Whether it said that the transfer is taken back."""
        url = f"{self._url}/transfers/{transfer_id}/cancel"
        try:
            async with self._session.post(url, headers={"cookie": cookie}) as answer:
                return answer.status == _DONE
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
