"""Asks the wallet over HTTP, as its administrator does; what its members ask for is said where it is played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import aiohttp
import orjson

from experiment.side import StalledError

DONE = 200
GATEWAY_TOKEN = "of the chat's gateway"  # noqa: S105  for the length of a run, on this machine
"""With which the wallet believes who signs users in itself."""


class WalletClient:
    """A client of one wallet; an async context manager. Sessions are given with each request, as a cookie."""

    timeout_s = 5.0
    """Of a request, with its answer."""
    connections_max = 100
    """Whoever asks when so many are taken waits for one."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        connector = aiohttp.TCPConnector(limit=self.connections_max)
        cookies = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, cookie_jar=cookies)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def sign_in(self, name: str, password: str) -> str:
        """The session, as a cookie. Raises `StalledError` where there is none."""
        document = {"name": name, "password": password}
        async with self._session.post(f"{self._url}/session", json=document) as answer:
            if answer.status != DONE:
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
