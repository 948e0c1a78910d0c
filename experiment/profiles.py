"""What the brokers of an experiment promise when they confirm an event, and how each is set so that it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.native.site import Durability
from deploy.topology import BROKERS, BrokerName
from experiment.workload import ProfileName


@dataclass(frozen=True, slots=True)
class Profile:
    """A promise that both brokers are set to: `durability` in their own settings, `services` in the services'.

    `on_disk` are the brokers of which a confirmed event is on the disk. Where not both promise the same, `unequal`
    says in what they differ. `nodes` are each broker's, all on this machine.
    """

    name: ProfileName
    promise: str
    durability: Durability
    on_disk: frozenset[BrokerName]
    services: Mapping[str, str] = field(default_factory=dict)
    unequal: str | None = None
    nodes: int = 1

    @property
    def equal(self) -> bool:
        return self.unequal is None

    def __str__(self) -> str:
        nodes = "one node" if self.nodes == 1 else f"{self.nodes} nodes on this machine"
        return f"{self.name}: {nodes} each, {self.promise}, acknowledged by hand after the effect"

    @property
    def undecided(self) -> str | None:
        """Why no run with this profile decides anything, if none does."""
        if not self.equal:
            return "unequal promises"
        return "nodes on one machine" if self.nodes > 1 else None


_UNPACKED = {"TANDEM_KAFKA_COMPRESSION": "none"}
"""RabbitMQ has no compression."""
_BOTH, _NONE = frozenset(BROKERS), frozenset[BrokerName]()
PROFILES: Mapping[ProfileName, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "single-fsync",
            "an event is confirmed once it is on the disk",
            "fsync",
            _BOTH,
            {**_UNPACKED, "TANDEM_KAFKA_SYNCED": "true"},
        ),
        Profile("single-pagecache", "an event is confirmed once the kernel has it", "pagecache", _NONE, _UNPACKED),
        Profile(
            "as-usual",
            "each set as it usually is",
            "usual",
            frozenset({"rabbit"}),
            unequal="RabbitMQ's quorum queue confirms what is synced to disk, Kafka what is in the page cache "
            "(its durability is replication), so a power cut could cost Kafka the last moments",
        ),
        Profile(
            "replicated",
            "an event is confirmed once two of three nodes have it on their disk",
            "fsync",
            _BOTH,
            {**_UNPACKED, "TANDEM_KAFKA_REPLICATION_FACTOR": "3", "TANDEM_KAFKA_MIN_INSYNC_REPLICAS": "2"},
            nodes=3,
        ),
    )
}
