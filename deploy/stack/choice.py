"""The stack of `make up-*`: the one place that knows in which runtime it is, or will be."""

import os
from collections.abc import Iterator
from pathlib import Path

from deploy.errors import DeployError
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.stack.compose import ComposeStack
from deploy.stack.docker import is_available
from deploy.stack.lock import alone
from deploy.stack.native import NativeStack
from deploy.stack.settings import require_good_settings
from deploy.stack.stack import Stack, Status, nothing_up
from deploy.topology import BrokerName

STACK_ROOT = REPOSITORY / ".run" / "stack"
_UP_WAIT_MAX_S = 1.0
_DOWN_WAIT_MAX_S = 30.0  # an `up` that is about to be ready; one that hangs is named, to be killed


def up(broker: BrokerName, steps: Steps, nodes: int = 1) -> Status:
    """Bring the whole system up on `broker`, of 1 or 3 nodes, and return its status.

    Where it is up on that broker already, nothing happens. Raises DeployError, with nothing left running, when
    something is in the way or does not come up, and ConfigurationError, with nothing begun, for a bad setting.
    """
    require_good_settings(broker, nodes)
    with alone(_lock(), f"up {broker}", steps, wait_max_s=_UP_WAIT_MAX_S):
        there = running(steps)
        if there is None:
            there = _chosen(steps)
            there.up(broker, nodes)
        elif there.broker() != broker:
            raise DeployError(f"the stack is already up on {there.broker()}; run `make down` first")
        elif there.nodes() not in (None, nodes):
            raise DeployError(f"the stack is already up with {there.nodes()} node(s); run `make down` first")
        return there.status() or nothing_up()


def down(steps: Steps, *, volumes: bool = False) -> bool:
    """Stop everything that `up` started; False when nothing was up.

    With `volumes` its data is deleted too, in the runtime that RUNTIME names, else in both.
    Raises DeployError when another `up` or `down` does not end soon.
    """
    with alone(_lock(), "down", steps, wait_max_s=_DOWN_WAIT_MAX_S):
        found = _native(steps).down(volumes=volumes and _forced() != "docker")
        if volumes:
            _chosen(steps)  # where the runtime that was asked for is not there, nothing would be deleted: an error
        in_containers = _in_containers(steps)
        return (in_containers is not None and in_containers.down(volumes=volumes)) or found


def status() -> Status:
    """What runs and whether it answers, in whichever runtime."""
    for stack in _possible(Steps()):
        found = stack.status()
        if found is not None:
            return found
    return nothing_up()


def running(steps: Steps | None = None) -> Stack | None:
    """The stack that is up, in whichever runtime; None when none is."""
    for stack in _possible(steps or Steps()):
        if stack.broker() is not None:
            return stack
    return None


def require_running() -> Stack:
    """As `running`. Raises DeployError when nothing is up."""
    stack = running()
    if stack is None:
        raise DeployError("nothing is up; `make up-rabbit` or `make up-kafka` starts everything")
    return stack


def latest() -> Stack:
    """The stack that is up, else the native one, whose traces outlive it."""
    return running() or _native(Steps())


# -- the choice


def _chosen(steps: Steps) -> Stack:
    """Where `up` goes: RUNTIME=docker|native decides, else whether an engine answers.

    Raises DeployError for another value of RUNTIME, or when docker is forced and not there.
    """
    if _forced() not in ("", "docker", "native"):
        raise DeployError(f"RUNTIME must be docker or native, not {_forced()!r}")
    in_containers = _in_containers(steps)
    if in_containers is None and _forced() == "docker":
        raise DeployError("RUNTIME=docker was asked for, but no Docker engine with Compose 2.20 or newer answers")
    return in_containers or _native(steps)


def _possible(steps: Steps) -> Iterator[Stack]:
    """Every runtime in which something may be up, the native one first: it is asked in no time."""
    yield _native(steps)
    in_containers = _in_containers(steps)
    if in_containers:
        yield in_containers


def _native(steps: Steps) -> NativeStack:
    return NativeStack(STACK_ROOT, steps)


def _in_containers(steps: Steps) -> ComposeStack | None:
    """The stack in containers, where there may be one."""
    return ComposeStack(steps) if _forced() != "native" and is_available() else None


def _forced() -> str:
    return os.environ.get("RUNTIME", "")


def _lock() -> Path:
    return STACK_ROOT.with_name("stack.lock")  # beside what `down` may delete
