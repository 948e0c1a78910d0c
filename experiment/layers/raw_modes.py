"""The modes in which a client without effect consumes, and what order each keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deploy.topology import BrokerName

_NAME = "tandem-layers"
Order = Literal["by key", "whole stream", "none"]


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to consume a stream. `order` is what stays in order while consumers come and go, `consumers` are the
    numbers of them that are tried; of `places` queues or partitions each consumer has its part, if `divided`."""

    name: str
    title: str
    broker: BrokerName
    order: Order
    consumers: tuple[int, ...]
    places: int = 1
    divided: bool = False

    def name_in(self, prefix: str) -> str:
        """Of its exchange or topic, where names begin with `prefix`."""
        return f"{prefix}{_NAME}-{self.name}"

    def queues(self, prefix: str) -> list[str]:
        """The names of its queues on RabbitMQ, a place each."""
        return [f"{self.name_in(prefix)}-{place}" for place in range(self.places)]

    def shares(self, count: int) -> list[list[int]]:
        """Which places each of so many consumers gets; all of them, where the broker shares them out itself."""
        everything = list(range(self.places))
        return [everything[which::count] for which in range(count)] if self.divided else [everything] * count


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("single-active", "quorum queue, single active consumer", "rabbit", "by key", (1, 2)),
        Mode("competing", "quorum queue, competing consumers", "rabbit", "none", (1, 2, 4)),
        Mode(
            "hashed",
            "12 such ordered queues behind a consistent-hash exchange",
            "rabbit",
            "by key",
            (1, 2, 4),
            places=12,
            divided=True,
        ),
        Mode("stream", "stream, read from its first offset", "rabbit", "whole stream", (1,)),
        Mode("partitions-12", "group on a topic of 12 partitions", "kafka", "by key", (1, 2, 4), places=12),
        Mode("partitions-1", "group on a topic of one partition", "kafka", "whole stream", (1,)),
    )
}
AS_TANDEM: Mapping[BrokerName, str] = {"rabbit": "single-active", "kafka": "partitions-12"}
"""The mode that Tandem's own channels have."""
