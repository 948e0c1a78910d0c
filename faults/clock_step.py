"""Sets the clock of a running process wrong, for that process alone (libfaketime, preloaded).

Only the wall clock steps; the monotonic clock, which a step leaves alone, goes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from deploy.errors import DeployError
from deploy.native.install.system import apt_install
from experiment.clock import until
from experiment.side import StalledError
from faults.scene import PATIENCE_S, Scene

_PACKAGE = "libfaketime"
_POLL_S = 0.2
_LIBRARY = "*-linux-gnu*/faketime/libfaketime.so.1"


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The clock of the process `order`, `notification-consumer`, … goes wrong by `step_s`."""

    process: str
    step_s: int

    async def prepare(self, scene: Scene) -> None:
        """Start a process whose clock can be set; it is right so far."""
        path = await scene.call(library)
        _dial(scene).write_text("+0\n")
        environment = {
            "LD_PRELOAD": str(path),
            "FAKETIME_TIMESTAMP_FILE": str(_dial(scene)),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        await scene.stand_in(self.process, environment)

    async def act(self, scene: Scene) -> None:
        """Step, for good. Raises `StalledError` when the process does not see it."""
        scene.begin()
        _dial(scene).write_text(f"{self.step_s:+d}\n")
        scene.end()
        url = scene.runtime.addresses.process_urls(scene.broker)[f"{scene.process(self.process)}-stand-in"]
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:

            async def seen() -> bool:
                answer = await client.get("/health/live")
                wrong_s = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
                return abs(wrong_s - self.step_s) < abs(self.step_s) / 2

            if not await until(seen, PATIENCE_S, _POLL_S):
                raise StalledError(f"the clock of {self.process} has not stepped")

    async def restore(self, scene: Scene) -> None:
        """Start the process with the machine's clock."""
        await scene.restored(self.process)


def library() -> Path:
    """The library, installed from Debian's package if it is not there. Raises `DeployError`."""
    for attempt in range(2):
        found = next(Path("/usr/lib").glob(_LIBRARY), None)
        if found is not None:
            return found
        if attempt == 0:
            apt_install([_PACKAGE])
    raise DeployError(f"{_PACKAGE} is installed and has no {_LIBRARY}")


def _dial(scene: Scene) -> Path:
    """The file in which the process reads how far its clock is off."""
    return scene.runtime.root / f"clock-{scene.broker}"
