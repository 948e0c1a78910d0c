"""What the client's errors mean to us."""

from __future__ import annotations

from aiokafka.errors import KafkaError

from shared.errors import UnavailableError

LOST = (KafkaError, ConnectionError, OSError, TimeoutError)
"""What aiokafka raises when the cluster is away or refuses."""


def unavailable(error: BaseException) -> UnavailableError:
    """Our error for the client's, naming it."""
    return UnavailableError(f"Kafka: {error!r}")
