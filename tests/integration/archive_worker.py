"""A process of the tests that runs the steps of the notification service's archive, and nothing else of it.

`python -m tests.integration.archive_worker`; its settings say where it dies.
"""

from __future__ import annotations

import asyncio

from services.notification.handlers import JOBS
from shared.process.parts import build_parts
from shared.settings import Settings


async def main() -> None:
    parts = build_parts("notification", Settings.from_environment())
    parts.units.submitter = JOBS
    await JOBS.work(parts)


if __name__ == "__main__":
    asyncio.run(main())
