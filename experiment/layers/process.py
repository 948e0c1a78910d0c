"""One process of a layer: `python -m experiment.layers.process publish|consume|pipeline …`.

It says `ready`, waits for a line, and then says of each batch when it was done, how many it had, and how much CPU
time the process has used: two numbers of nanoseconds around a count. It ends when it is done or its input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import uvloop

from experiment.layers.messages import read_messages
from experiment.layers.raw_clients import raw_client
from experiment.layers.raw_modes import MODES, Mode
from experiment.logs import log_errors_alone
from shared.garbage import rest_garbage_collector
from shared.settings import Settings

_SERVICE = "notification"


def mark(count: int) -> None:
    """Say that so many more are done."""
    sys.stdout.write(f"{time.monotonic_ns()} {count} {time.process_time_ns()}\n")
    sys.stdout.flush()


async def _told() -> bool:
    """Whether a line came; not, when the input has ended."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    return bool(await asyncio.to_thread(sys.stdin.readline))


async def publish(settings: Settings, mode: Mode, path: Path, copies: int) -> None:
    """Declare the mode's place and publish the file's messages there, all of them so many times over."""
    messages = copies * read_messages(path)
    async with raw_client(settings, mode) as client:
        await client.declare()
        if await _told():
            mark(0)
            await client.publish(messages, mark)


async def consume(settings: Settings, mode: Mode, places: list[int]) -> None:
    """Consume there until the input ends."""
    ended = asyncio.Event()

    async def wait_for_end() -> None:
        while await asyncio.to_thread(sys.stdin.readline):
            pass
        ended.set()

    async with raw_client(settings, mode) as client:
        if await _told():
            waiting = asyncio.create_task(wait_for_end())
            await client.consume(places, mark, ended)
            await waiting


async def pipeline(settings: Settings, path: Path, batch_max: int) -> None:
    """Give the file's messages to the service's pipeline, as a broker would that takes no time."""
    from experiment.layers.null_broker import NullBroker
    from experiment.stamping.process import stamped
    from shared.consuming import Pipeline
    from shared.process import build_parts

    messages = read_messages(path)
    broker: Any = NullBroker(messages, batch_max, mark)
    parts = stamped(replace(build_parts(_SERVICE, settings), broker=broker), _SERVICE)
    subscribers = import_module(f"services.{_SERVICE}.app").SERVICE.subscribers
    subscriber = next(each for each in subscribers if each.channel == messages[0].channel)
    handler = Pipeline(
        settings,
        subscriber=subscriber,
        broker=broker,
        claims=parts.claims,
        units=parts.units,
        telemetry=parts.telemetry,
    )
    try:
        async with parts.claims.heartbeat():
            if await _told():
                mark(0)
                await parts.broker.subscribe(handler.subscription, handler)
    finally:
        await parts.close()


def main(arguments: list[str]) -> None:
    """Run one, on uvloop and with the garbage collector at rest, as the services do."""
    log_errors_alone()  # nobody reads the standard error before the end, and it has room for 64 KiB
    settings = Settings.from_environment()
    what, *rest = arguments
    rest_garbage_collector()
    if what == "publish":
        uvloop.run(publish(settings, MODES[rest[0]], Path(rest[1]), int(rest[2])))
    elif what == "consume":
        uvloop.run(consume(settings, MODES[rest[0]], [int(place) for place in rest[1].split(",")]))
    else:
        uvloop.run(pipeline(settings, Path(rest[0]), int(rest[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # a thread may still wait for a line of input
