"""Dead letters on Kafka: put in their topic, looked at there, and given back by a topic of their subscriber."""

from __future__ import annotations

from collections.abc import Mapping

from shared.broker.base import DeadLetter, Delivery, Subscription
from shared.broker.kafka.clients import KafkaClients
from shared.broker.kafka.consumer import text_headers
from shared.broker.kafka.declarations import KafkaDeclarations
from shared.broker.kafka.producer import KafkaProducer
from shared.broker.kafka.sent import record_of
from shared.errors import PermanentError

_LOOK_MS = 500


class KafkaDeadLetters:
    """`DeadLetterChannel`, but for the consuming of what is in it."""

    def __init__(self, clients: KafkaClients, declarations: KafkaDeclarations, producer: KafkaProducer) -> None:
        self._clients = clients
        self._declarations = declarations
        self._producer = producer

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        """As `DeadLetterChannel.publish_dead_letter`."""
        await self._publish_again(self._declarations.dead_letter_topic(subscription), delivery, headers)

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        """As `DeadLetterChannel.publish_retry`."""
        await self._publish_again(self._declarations.retry_topic(subscription), delivery, headers)

    async def _publish_again(self, topic: str, delivery: Delivery, headers: Mapping[str, str]) -> None:
        """A delivery once more, under its own key, with `headers` added to its own."""
        try:
            record = record_of(delivery, headers)
        except ValueError as error:
            raise PermanentError(f"Kafka: {error}") from error
        await self._producer.publish_one(topic, *record)

    async def dead_letters(self, subscription: Subscription, limit: int) -> list[DeadLetter]:
        """As `DeadLetterChannel.dead_letters`."""
        topic = self._declarations.dead_letter_topic(subscription)
        letters: list[DeadLetter] = []
        async with self._clients.onlooker(topic) as consumer, self._clients.asking():
            await consumer.start()
            partitions = list(consumer.assignment())
            ends = await consumer.end_offsets(partitions)
            while len(letters) < limit and any([await consumer.position(p) < ends[p] for p in partitions]):
                polled = await consumer.getmany(timeout_ms=_LOOK_MS, max_records=limit - len(letters))
                for records in polled.values():
                    letters += [DeadLetter(topic, r.value or b"", text_headers(r)) for r in records]
        return letters
