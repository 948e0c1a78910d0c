"""A hand-written aio-pika loop: `python -m bench.contenders.by_hand_rabbit CHANNEL SUBSCRIBER [--inbox-alone]`."""

from __future__ import annotations

import asyncio
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from bench.contenders.by_hand import Recorder, run_until_told
from shared.settings import Settings

_GATHER_WAIT_S = 0.003


async def drain(
    settings: Settings, channel_name: str, subscriber: str, stopping: asyncio.Event, *, inbox_alone: bool
) -> None:
    """Consume until told to stop: what has arrived is a batch, and one `ack(multiple)` closes it."""
    arrived: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()

    async def end() -> None:
        await stopping.wait()
        await arrived.put(None)

    connecting = await aio_pika.connect(settings.rabbit_url)
    async with connecting as connection, Recorder(settings, subscriber, inbox_alone=inbox_alone) as recorder:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=2 * settings.batch_max)
        queue = await channel.get_queue(f"{subscriber}.{channel_name}")
        await queue.consume(arrived.put)
        ending = asyncio.create_task(end())
        while (first := await arrived.get()) is not None:
            batch = [first]
            if arrived.qsize() < settings.batch_max:
                await asyncio.sleep(_GATHER_WAIT_S)
            while len(batch) < settings.batch_max and not arrived.empty():
                message = arrived.get_nowait()
                if message is None:
                    break
                batch.append(message)
            await recorder.record(message.body for message in batch)
            await batch[-1].ack(multiple=True)
            if stopping.is_set():
                break
        await ending


if __name__ == "__main__":
    told = asyncio.Event()
    alone = "--inbox-alone" in sys.argv[3:]
    run_until_told(drain(Settings.from_environment(), sys.argv[1], sys.argv[2], told, inbox_alone=alone), told)
