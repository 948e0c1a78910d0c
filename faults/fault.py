"""What a fault is: one way to break the running system."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from deploy.topology import BROKERS, BrokerName
from faults.scene import Scene

Act = Callable[[Scene], Awaitable[None]]


async def _nothing(_scene: Scene) -> None:
    return


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break the running system.

    `prepare` is called before the load, `act` when it has run for a while, `restore` in any case at the end.

    `load_s` is how long the load lasts at least: through the fault, and into the time after it until the system is
    caught up, as a rule.
    """

    name: str
    title: str
    act: Act
    load_s: float
    prepare: Act = _nothing
    restore: Act = _nothing
    brokers: tuple[BrokerName, ...] = BROKERS
    nodes: int = 1
    """How many nodes the broker must have."""
    unnoticed: bool = False
    """Clients may lose their connection, and must not be answered with an error."""
