"""A clock that steps back an hour while a consumer runs, for that process alone (libfaketime, preloaded).

Only the wall clock steps; the monotonic clock, which a step leaves alone, goes on.
"""

from __future__ import annotations

from pathlib import Path

from deploy.errors import DeployError
from deploy.native.system import apt_install
from faults.scene import Scene

_CONSUMER = "notification-consumer"
_PACKAGE = "libfaketime"
_LIBRARY = "*-linux-gnu*/faketime/libfaketime.so.1"


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


async def prepare(scene: Scene) -> None:
    """A consumer whose clock can be set; it is right so far."""
    path = await scene.call(library)
    _dial(scene).write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(path),
        "FAKETIME_TIMESTAMP_FILE": str(_dial(scene)),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    await scene.stand_in(_CONSUMER, environment)


async def step_back(scene: Scene) -> None:
    """An hour back, and it stays there."""
    scene.begin()
    _dial(scene).write_text("-3600\n")
    scene.end()


async def restore(scene: Scene) -> None:
    """The consumer with the machine's clock."""
    await scene.restored(_CONSUMER)
