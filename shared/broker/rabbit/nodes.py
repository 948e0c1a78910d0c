"""Connects to another node of a RabbitMQ cluster when the one that was used is gone.

aio-pika takes one URL and tries it for ever. `connection_class` makes its connection take the next node's address
for every attempt; everything else, such as the return of channels and consumers, stays aio-pika's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from aio_pika import RobustConnection
from yarl import URL

from shared.broker.rabbit.errors import LOST
from shared.setting_values import parts
from shared.settings import Settings

_CLOSE_S = 3.0


def node_urls(setting: str, **options: str | int) -> list[URL]:
    """The nodes of `TANDEM_RABBIT_URL`, separated by commas, each with these options in its query."""
    return [URL(part).update_query(options) for part in parts(setting)]


def urls_of(settings: Settings, **options: str | int) -> list[URL]:
    """The nodes that the settings name, with the authorities by which a certificate is checked."""
    authorities = {"cafile": str(settings.broker_ca_file)} if settings.broker_ca_file else {}
    return node_urls(settings.rabbit_url or "", **authorities, **options)


def connection_class(nodes: Sequence[URL]) -> type[RobustConnection]:
    """A connection that tries `nodes` in turn; every instance goes on where the last attempt left off."""
    turn = deque(nodes)

    class NodeConnection(RobustConnection):
        def __init__(self, url: URL, *arguments: Any, **options: Any) -> None:
            self._used: URL | None = None
            super().__init__(url, *arguments, **options)
            self._used = turn[0]

        async def connect(self, timeout: float | None = None) -> None:
            """aio-pika's own goes on by itself when it is given up, in a task that is deaf to being cancelled."""
            try:
                await super().connect(timeout)
            except BaseException:
                with contextlib.suppress(*LOST):
                    async with asyncio.timeout(_CLOSE_S):
                        await self.close()
                raise

        @property
        def url(self) -> URL:
            """aio-pika reads it once for every attempt to connect: then it is the next node's."""
            if self._used is None:  # under construction, where only the options are looked at
                return turn[0]
            self._used = turn[0]
            turn.rotate(-1)
            return self._used

        @url.setter
        def url(self, url: URL) -> None:
            """The one address that aio-pika was given; there are others."""

        def __str__(self) -> str:
            return str((self._used or turn[0]).with_password("******"))

    return NodeConnection
