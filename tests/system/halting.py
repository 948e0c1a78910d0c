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

from shared.process import process
from shared.process.process import Process, Service
from shared.settings import Settings

POINTS = ("claimed", "committed", "marked", "published")


def halting_process(point: str, reached: Path) -> type[Process]:
    """`Process` with the one part replaced."""

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

    class HaltingProcess(Process):
        def __init__(self, service: Service, settings: Settings) -> None:
            super().__init__(service, settings)
            part, name, place = {
                "claimed": (self.claims, "claim", after),
                "committed": (self.claims, "done", before),
                "marked": (self.claims, "done", after),
                "published": (self.broker, "publish", after),
            }[point]
            setattr(part, name, place(getattr(part, name)))

    return HaltingProcess


def main(service: str, point: str, reached: str) -> int:
    app = import_module(f"services.{service}.app")
    process.Process = halting_process(point, Path(reached))  # type: ignore[misc]
    return process.run(app.SERVICE)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
