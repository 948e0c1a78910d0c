"""Asks a Docker engine, over its socket, what a container has used, and why one has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.errors import DeployError

SOCKET = Path("/var/run/docker.sock")
_TIMEOUT_S = 10.0
_LAST_LINES = 12
_FRAME_HEAD = 8
_NS_PER_S = 1e9


class EngineError(DeployError):
    """The engine does not answer, or not what it was asked."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a server has used since it began, and the memory that it has; None: not measured."""

    cpu_s: float
    memory_bytes: int | None
    written_bytes: int | None


class Engine:
    """A client of the engine that runs the servers. Every method blocks, and raises `EngineError`."""

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=_TIMEOUT_S
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def account(self, container: str) -> Account:
        """What a container has used so far, page cache included."""
        # Otherwise it takes one second more, to tell how much was used in it.
        answer = self._get(f"/containers/{container}/stats", stream="false", **{"one-shot": "true"})
        try:
            return account_of(answer.json())
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"the engine does not tell what {container} uses: {error!r}") from error

    def ended(self, container: str) -> str | None:
        """With which exit code a container has ended, and its last lines; None while it runs."""
        state = self._get(f"/containers/{container}/json").json()["State"]
        if state["Running"]:
            return None
        said = self._get(f"/containers/{container}/logs", stdout="true", stderr="true", tail=str(_LAST_LINES))
        killed = ", out of memory" if state.get("OOMKilled") else ""
        return f"it ended with exit code {state['ExitCode']}{killed}:\n{_text(said.content)}"

    def _get(self, path: str, **parameters: str) -> httpx.Response:
        try:
            answer = self._client.get(path, params=parameters)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise EngineError(f"the engine does not answer on {self._socket}: {error!r}") from error
        return answer


def account_of(told: Mapping[str, Any]) -> Account:
    """From an answer of `/containers/…/stats`.

    Version 1 of control groups does not know for whom the kernel wrote what it wrote later: what goes to the disk
    is measured with version 2 alone, and there where a device is listed.
    """
    memory = told["memory_stats"]
    rows = told["blkio_stats"].get("io_service_bytes_recursive") or []
    written = [row["value"] for row in rows if row["op"].lower() == "write"]
    return Account(
        cpu_s=told["cpu_stats"]["cpu_usage"]["total_usage"] / _NS_PER_S,
        memory_bytes=memory.get("usage"),
        written_bytes=sum(written) if written and "anon" in memory.get("stats", {}) else None,
    )


def _text(stream: bytes) -> str:
    """The lines of a log, which come in frames: a kind, three bytes of nothing and a length before each."""
    found = bytearray()
    while len(stream) > _FRAME_HEAD:
        end = _FRAME_HEAD + int.from_bytes(stream[4:_FRAME_HEAD], "big")
        found += stream[_FRAME_HEAD:end]
        stream = stream[end:]
    return found.decode(errors="replace").strip()
