"""The names of the OpenTelemetry semantic conventions for messaging, in the one version that is pinned here.

Version 1.37, in which those for messaging are in development. Spans and metrics take their attributes from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.broker import Subscription, destination_name
from shared.settings import BrokerName

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
SCOPE: Final = "tandem"
"""The instrumentation scope of all spans and metrics that are ours."""

MESSAGING_SYSTEM: Final[Mapping[BrokerName, str]] = {"rabbit": "rabbitmq", "kafka": "kafka"}
"""What the conventions call each broker."""

DURATION_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Upper bounds of the buckets of every histogram of seconds, as the conventions advise."""
JOB_BUCKETS_S: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 3_600, 21_600)
"""Those of jobs, which take from milliseconds to hours."""


def destination_attributes(broker: BrokerName, channel: str) -> dict[str, str]:
    """Where a channel's events go to."""
    return {
        "messaging.system": MESSAGING_SYSTEM[broker],
        "messaging.destination.name": destination_name(broker, channel),
    }


def process_attributes(broker: BrokerName, subscription: Subscription) -> dict[str, str]:
    """What a subscriber does with the events of a channel."""
    return {
        **destination_attributes(broker, subscription.channel),
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": subscription.subscriber,
    }
