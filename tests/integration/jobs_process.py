"""A process of the tests that does all that jobs need: consumer, relay, clock and worker, until it is killed.

`python -m tests.integration.jobs_process <channel> <settings as JSON> [no relay]`; the settings say where it dies.
"""

from __future__ import annotations

import asyncio
import sys

import orjson

from shared.consuming import hear_directly
from shared.consuming.pipeline import Pipeline
from shared.jobs.due import make_due
from shared.jobs.leased import Worker
from shared.process.parts import build_parts
from shared.publishing.relay import Relay
from shared.settings import Settings
from tests.integration.jobs_world import jobs_on, leased_tag


async def main(channel: str, values: bytes, *, relays: bool) -> None:
    settings = Settings.from_environment(**orjson.loads(values))
    jobs = jobs_on(channel, leased_tag)
    parts = build_parts("tester", settings)
    parts.units.submitter = jobs
    pipeline = Pipeline(
        settings,
        subscriber=jobs.subscriber("tester"),
        broker=parts.broker,
        claims=parts.claims,
        units=parts.units,
        telemetry=parts.telemetry,
    )
    async with parts.claims.heartbeat(), parts.broker as broker, asyncio.TaskGroup() as tasks:
        await broker.declare((channel,), (pipeline.subscription,))
        await broker.subscribe(pipeline.subscription, pipeline)
        if pipeline.direct is not None:
            tasks.create_task(hear_directly(settings, "tester", [pipeline.direct]))
        if relays:
            tasks.create_task(Relay(settings, broker, parts.telemetry).run())
        tasks.create_task(make_due(parts.units, jobs.batch))
        tasks.create_task(Worker(parts, jobs.handlers, jobs.batch).run())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2].encode(), relays="no relay" not in sys.argv))
