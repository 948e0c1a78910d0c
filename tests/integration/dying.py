"""A consumer process of the tests: one event kills it.

`python -m tests.integration.dying <channel> <settings as JSON>` consumes until it is killed; the event with the
number -1 ends the process inside its handler, as a crash of a C library would, without a word to anyone.
"""

from __future__ import annotations

import asyncio
import os
import sys

import orjson

from shared.broker.connect import create_broker
from shared.consuming.claims import Claims
from shared.consuming.pipeline import Pipeline
from shared.consuming.subscriber import Handler, Subscriber
from shared.database import Database
from shared.event import Event
from shared.publishing.uow import UnitOfWork, UnitsOfWork
from shared.settings import Settings
from shared.telemetry.telemetry import Telemetry
from tests.integration.world import SUBSCRIBER, Happened, take_effect

KILLER = -1


async def on_happened(event: Event[Happened], uow: UnitOfWork) -> None:
    take_effect(event, uow)
    if event.data.number == KILLER:
        os._exit(9)


async def main(channel: str, values: bytes) -> None:
    settings = Settings.from_environment(**orjson.loads(values))
    telemetry = Telemetry(settings, "tester")
    claims = Claims(settings)
    async with claims.heartbeat(), create_broker(settings, channel) as broker:
        pipeline = Pipeline(
            settings,
            subscriber=Subscriber(
                channel, SUBSCRIBER, (Handler(Happened, on_happened),), ignores=frozenset({"thing.ignored"})
            ),
            broker=broker,
            claims=claims,
            units=UnitsOfWork(Database(settings, channel), "tester", telemetry.spans),
            telemetry=telemetry,
        )
        await broker.subscribe(pipeline.subscription, pipeline)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2].encode()))
