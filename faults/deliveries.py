"""Counts duplicate deliveries: what the consumers' own metrics call duplicate, across their restarts.

A counter begins anew with its process, which its start time tells apart. What a process counted between the last
look and its death is not known, so the figure is a lower bound; looks are half a second apart, and the duplicates
of a killed consumer are counted by its successor.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping

import httpx

_POLL_S = 0.5
_TIMEOUT_S = 2.0
_DUPLICATE = re.compile(
    r'^messaging_client_consumed_messages[a-z_]*\{[^}]*tandem_status="duplicate"[^}]*\} (\S+)$', re.MULTILINE
)
_STARTED = re.compile(r"^process_start_time_seconds (\S+)$", re.MULTILINE)


def started_at(page: str) -> str:
    """The start time of the process that a Prometheus page is from, as the page has it; empty if it has none."""
    found = _STARTED.search(page)
    return found[1] if found else ""


def duplicates_on(page: str) -> float:
    """The deliveries that a Prometheus page counts as duplicate, over all queues."""
    return sum(float(value) for value in _DUPLICATE.findall(page))


class DuplicateCount:
    """Counts the duplicate deliveries of processes; `urls` is asked at every look for their URLs by name."""

    def __init__(self, urls: Callable[[], Mapping[str, str]]) -> None:
        self._urls = urls
        self._last: dict[tuple[str, str], float] = {}
        self.total = 0

    async def watch(self) -> None:
        """Look every half second until cancelled."""
        async with self._client() as client:
            while True:
                await self._look(client)
                await asyncio.sleep(_POLL_S)

    async def look(self) -> None:
        """Look once. The first look at a process that ran before counts nothing."""
        async with self._client() as client:
            await self._look(client)

    @staticmethod
    def _client() -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)

    async def _look(self, client: httpx.AsyncClient) -> None:
        urls = dict(self._urls())
        answers = await asyncio.gather(*(_page(client, url) for url in urls.values()))
        for name, page in zip(urls, answers, strict=True):
            if page is not None:
                self._enter((name, started_at(page)), duplicates_on(page))

    def _enter(self, process: tuple[str, str], count: float) -> None:
        self.total += round(count - self._last.get(process, 0.0))
        self._last[process] = count


async def _page(client: httpx.AsyncClient, url: str) -> str | None:
    try:
        answer = await client.get(f"{url}/metrics")
    except httpx.HTTPError:
        return None
    return answer.text if answer.status_code == 200 else None
