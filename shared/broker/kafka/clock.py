"""What Kafka's clock says now, as far as this process knows: by what it said when it last took a record.

How old a request is must not hang on the clocks of two processes. Kafka stamps each record when it appends it. So
the same clock is asked for the time: a record goes to a topic of the subscription's own, and the stamp comes back
with the confirmation. Since it was stamped after it was sent, it is now at most that stamp and the time since the
sending, by this process's monotonic clock. Every request counts as a little older than it is: by the time that the
confirmation of that one record took.
"""

from __future__ import annotations

from time import monotonic

from shared.broker.kafka.producer import KafkaProducer
from shared.errors import UnavailableError


class KafkaClock:
    """The clock of the brokers, which are taken to agree; `ask` before `latest_s`, and again every few seconds."""

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        self._producer = producer
        self.topic = topic
        self._ahead_s: float | None = None
        """By how much Kafka's clock is ahead of the monotonic one, at most."""

    async def ask(self) -> None:
        """Raises `UnavailableError` when Kafka does not answer, or does not stamp."""
        sent_at_s = monotonic()
        appended_ms = await self._producer.publish_one(self.topic, b"clock", b"", ())
        if appended_ms is None:
            raise UnavailableError(f"Kafka: {self.topic} has no times of its own")
        self._ahead_s = appended_ms / 1_000 - sent_at_s

    def latest_s(self) -> float:
        """Seconds since 1970: it is no later than that at the brokers. Raises `RuntimeError` before `ask`."""
        if self._ahead_s is None:
            raise RuntimeError("nobody has asked for the time yet")
        return monotonic() + self._ahead_s
