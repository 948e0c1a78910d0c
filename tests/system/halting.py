"""A service's real process that stops dead at one named point, for the tests to kill it there.

`python -m tests.system.halting <service> <point> <file>` runs `services.<service>.app` as it is, with one part
replaced: at the point the part touches the file and never goes on. Points:

    claimed     a batch is claimed, nothing has happened to it
    committed   its effects are committed, the claims not yet marked
    marked      its claims are marked as done, nothing is settled
    published   the relay's batch is confirmed by the broker, the relay does not know yet
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from shared.process.parts import Parts, build_parts
from shared.process.server import run
from shared.settings import Settings

POINTS = ("claimed", "committed", "marked", "published")


def halting_parts(point: str, reached: Path) -> Callable[[str, Settings], Parts]:
    """`build_parts` with the one part replaced."""

    async def halt() -> None:
        await asyncio.to_thread(reached.touch)
        await asyncio.get_running_loop().create_future()

    def before(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def halted(*_arguments: Any, **_options: Any) -> Any:
            await halt()

        return halted

    def after(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def halted(*arguments: Any, **options: Any) -> Any:
            await method(*arguments, **options)
            await halt()

        return halted

    def build(service_name: str, settings: Settings) -> Parts:
        parts = build_parts(service_name, settings)
        part, name, place = {
            "claimed": (parts.claims, "claim", after),
            "committed": (parts.claims, "done", before),
            "marked": (parts.claims, "done", after),
            "published": (parts.broker, "publish", after),
        }[point]
        setattr(part, name, place(getattr(part, name)))
        return parts

    return build


def main(service: str, point: str, reached: str) -> int:
    app = import_module(f"services.{service}.app")
    return run(app.SERVICE, halting_parts(point, Path(reached)))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
