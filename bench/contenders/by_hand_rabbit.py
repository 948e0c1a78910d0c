"""A hand-written aio-pika loop: `python -m bench.contenders.by_hand_rabbit CHANNEL SUBSCRIBER [--inbox-alone]`."""

from __future__ import annotations

import asyncio
import sys
from collections import deque

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from bench.contenders.by_hand import Recorder, run_until_told
from shared.settings import Settings

_GATHER_WAIT_S = 0.003
_BUSY_BATCH = 32


async def drain(
    settings: Settings, channel_name: str, subscriber: str, stopping: asyncio.Event, *, inbox_alone: bool
) -> None:
    """Consume until told to stop: what has arrived is a batch, and one `ack(multiple)` closes it."""
    arrived: deque[AbstractIncomingMessage] = deque()
    woken = asyncio.Event()

    async def arrive(message: AbstractIncomingMessage) -> None:
        arrived.append(message)
        woken.set()

    async def end() -> None:
        await stopping.wait()
        woken.set()

    connecting = await aio_pika.connect(settings.rabbit_url)
    async with connecting as connection, Recorder(settings, subscriber, inbox_alone=inbox_alone) as recorder:
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=2 * settings.batch_max)
        queue = await channel.get_queue(f"{subscriber}.{channel_name}")
        await queue.consume(arrive)
        ending = asyncio.create_task(end())
        last_count = 0
        while not stopping.is_set():
            await woken.wait()
            if last_count >= _BUSY_BATCH and len(arrived) < settings.batch_max:
                await asyncio.sleep(_GATHER_WAIT_S)
            batch = [arrived.popleft() for _ in range(min(len(arrived), settings.batch_max))]
            if not arrived and not stopping.is_set():
                woken.clear()
            if batch:
                await recorder.record(message.body for message in batch)
                await batch[-1].ack(multiple=True)
            last_count = len(batch)
        await ending


if __name__ == "__main__":
    told = asyncio.Event()
    alone = "--inbox-alone" in sys.argv[3:]
    run_until_told(drain(Settings.from_environment(), sys.argv[1], sys.argv[2], told, inbox_alone=alone), told)
