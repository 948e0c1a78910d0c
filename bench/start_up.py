"""Measures how long the whole takes from `make up-*` to its first effect, when all is installed and was up before.

`python -m bench.start_up BROKER ROOT` starts it as `make up-*` does, on the same ports, with data of its own in
ROOT.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import aiohttp

from bench.errors import BenchError
from deploy.errors import DeployError
from deploy.native import Runtime
from deploy.native.site import read_state
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.stack.native import NativeStack
from deploy.topology import BrokerName
from experiment.clock import until

_TIMEOUT_S = 180.0
_EFFECT_TIMEOUT_S = 60.0
_POLL_S = 0.05
_LINES = [{"sku": "tea", "quantity": 2, "unit_amount": 450}]


async def to_first_effect_s(broker: str, root: Path) -> float:
    """Seconds from the command to a notification of an order, the second time that it is up.

    Raises `BenchError` when it does not come up, as when something else has the ports, or cannot be stopped.
    """
    try:
        return await _to_first_effect_s(broker, root)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{broker} is not up after {error.timeout:g} s") from error
    except (DeployError, aiohttp.ClientError) as error:
        raise BenchError(f"{broker}: {error}") from error


async def _to_first_effect_s(broker: str, root: Path) -> float:
    await asyncio.to_thread(_stop, root, remove=True)  # what a run left that was killed
    try:
        await asyncio.to_thread(_up, broker, root)
        await asyncio.to_thread(_stop, root)
        began_s = time.perf_counter()
        await asyncio.to_thread(_up, broker, root)
        await _order(root)
        return time.perf_counter() - began_s
    finally:
        await asyncio.to_thread(_stop, root, remove=True)


def _up(broker: str, root: Path) -> None:
    command = [sys.executable, "-m", "bench.start_up", broker, str(root)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if done.returncode:
        raise BenchError(f"{broker} does not come up: {done.stderr.strip()}")


def _stop(root: Path, *, remove: bool = False) -> None:
    if read_state(root):
        Runtime.attach(root).stop(remove=remove)


async def _order(root: Path) -> None:
    """Register a user, place an order as soon as that user is known, and wait for the order's notification."""
    urls = Runtime.attach(root).addresses.service_urls()
    async with aiohttp.ClientSession() as session:
        user = {"email": f"{uuid4()}@example.org", "name": "Ada"}
        user_id = (await _post(session, f"{urls['user']}/users", user))["id"]
        order = {"user_id": user_id, "currency": "EUR", "lines": _LINES}
        placed: dict[str, Any] = {}

        async def is_placed() -> bool:
            placed.update(await _post(session, f"{urls['order']}/orders", order))
            return "id" in placed

        async def is_told() -> bool:
            async with session.get(f"{urls['notification']}/notifications?order_id={placed['id']}") as answer:
                return bool((await answer.json())["items"])

        if not await until(is_placed, _EFFECT_TIMEOUT_S, _POLL_S):
            raise BenchError(f"no order is taken: {placed}")
        if not await until(is_told, _EFFECT_TIMEOUT_S, _POLL_S):
            raise BenchError(f"order {placed['id']} has no notification")


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=body) as answer:
        return cast("dict[str, Any]", await answer.json())


if __name__ == "__main__":
    try:
        NativeStack(Path(sys.argv[2]), Steps(quiet=True)).up(cast("BrokerName", sys.argv[1]), 1)
    except DeployError as error:
        sys.exit(str(error))
