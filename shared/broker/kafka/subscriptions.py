"""All that one process consumes from Kafka, by consumers that FastStream owns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from shared.broker.base import BatchHandler, Subscription, Trouble
from shared.broker.kafka.access import security_of, servers_of
from shared.broker.kafka.clients import (
    GOODBYE_S,
    ISOLATION_LEVEL,
    METADATA_MAX_AGE_MS,
    REQUEST_TIMEOUT_MS,
    RETRY_BACKOFF_MS,
    KafkaClients,
    ended,
)
from shared.broker.kafka.clock import KafkaClock
from shared.broker.kafka.consumer import KafkaConsumer, Waiting
from shared.broker.kafka.declarations import KafkaDeclarations
from shared.broker.kafka.fetching import BUSY_WAIT_MS, FIRST_FETCH
from shared.broker.kafka.handover import Handover
from shared.broker.kafka.producer import KafkaProducer
from shared.broker.kafka.topics import clock_topic, dead_letter_topic, group_name, subscribed_topics
from shared.broker.tending import Standstill
from shared.errors import TandemError
from shared.settings import Settings

_HELD_BACK = "stands still: a producer's transaction has been open for a minute, and what is behind it waits"


def handover_wait_s(settings: Settings) -> float:
    """How long a rebalance waits for the batch that runs: as long as its handlers and their retries may take.

    The whole group stands still meanwhile, also when a member hangs. A batch that takes longer, since a server is
    away, is not waited for: it comes again elsewhere, where claims and inbox keep its effects single.
    """
    return settings.handler_timeout_s + settings.handler_retry_max_s


def consumer_options(settings: Settings) -> dict[str, Any]:
    """What every consumer gets. Offsets are committed by hand."""
    session_ms = int(settings.kafka_session_timeout_s * 1_000)
    return {
        "auto_offset_reset": "earliest",
        "isolation_level": ISOLATION_LEVEL,
        "max_poll_interval_ms": int(settings.kafka_max_poll_interval_s * 1_000),
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": session_ms // 3,
        # A member hears of a rebalance by a heartbeat, hands over, and joins: unset, it had the session's time for
        # all of it, and whoever took longer was put out with its batch still running.
        "rebalance_timeout_ms": int(handover_wait_s(settings) * 1_000) + session_ms,
        # Of the first requests: then each batch says what is worth while (`fetching`).
        "fetch_max_wait_ms": FIRST_FETCH.wait_ms,
        "fetch_max_bytes": FIRST_FETCH.bytes_max,
        "max_partition_fetch_bytes": FIRST_FETCH.partition_bytes_max,
    }


def request_options() -> dict[str, Any]:
    """What a consumer of requests gets besides. While a batch takes longer than a tenth of a second, the client
    asks for all partitions but that batch's, and until that is answered nothing new is read from there: with
    somebody waiting, half a second for each batch is too long."""
    return {"fetch_max_wait_ms": BUSY_WAIT_MS}


def dead_letter_group(group: str, subscription: Subscription, prefix: str) -> str:
    """One for each place: members that read different topics would rebalance for each other's sake."""
    return f"{prefix}{group}.{subscription.queue}"


class KafkaSubscriptions:
    """`Consumer`, and the consuming of dead letters."""

    def __init__(
        self,
        client_name: str,
        clients: KafkaClients,
        declarations: KafkaDeclarations,
        settings: Settings,
        *,
        producer: KafkaProducer,
    ) -> None:
        self._clients = clients
        self._producer = producer
        self._declarations = declarations
        self._settings = settings
        self._prefix = settings.broker_prefix
        self._broker = KafkaBroker(
            servers_of(settings),
            security=security_of(settings),
            client_id=client_name,
            consumer_only=True,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            allow_auto_create_topics=False,
            graceful_timeout=settings.shutdown_grace_s,
            logger=None,
            apply_types=False,
        )
        self._consumers: list[KafkaConsumer] = []
        self._clocks: list[KafkaClock] = []
        self._standstill = Standstill()

    async def start(self) -> None:
        """Have FastStream ready, without any consumer. Raises one of `LOST`; the caller bounds the time."""
        await self._broker.start()

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        """As `Consumer.subscribe`."""
        await self._declarations.declare((), (subscription,))
        clock: KafkaClock | None = None
        if subscription.answers:
            clock = KafkaClock(self._producer, clock_topic(subscription, self._prefix))
            await clock.ask()
            self._clocks.append(clock)
        topics = subscribed_topics(subscription, self._prefix)
        await self._consume(subscription, topics, group_name(subscription, self._prefix), handler, clock)

    async def subscribe_dead_letters(self, subscription: Subscription, group: str, handler: BatchHandler) -> None:
        """As `DeadLetterChannel.subscribe_dead_letters`."""
        await self._declarations.declare_dead_letter_place(subscription)
        topic = dead_letter_topic(subscription, self._prefix)
        await self._consume(subscription, (topic,), dead_letter_group(group, subscription, self._prefix), handler)

    async def _consume(
        self,
        subscription: Subscription,
        topics: Sequence[str],
        group: str,
        handler: BatchHandler,
        clock: KafkaClock | None = None,
    ) -> None:
        handover = Handover(handover_wait_s(self._settings))
        subscriber = self._broker.subscriber(
            *topics,
            group_id=group,
            ack_policy=AckPolicy.MANUAL,
            listener=handover,
            persistent=False,
            **(consumer_options(self._settings) | ({} if clock is None else request_options())),
        )
        consumer = KafkaConsumer(subscription, subscriber, handover, handler)
        consumer.clock = clock
        self._consumers.append(consumer)
        try:
            async with self._clients.setting_up():
                await consumer.start()
        except TandemError:
            # Half started it may yet join, and hold its partitions without ever polling.
            self._consumers.remove(consumer)
            await consumer.stop(GOODBYE_S)
            raise

    @property
    def settlement_failures(self) -> Mapping[str, int]:
        """As `Consumer.settlement_failures`."""
        failures: Counter[str] = Counter()
        for consumer in self._consumers:
            failures[consumer.queue] += consumer.settlement_failures
        return failures

    def look(self) -> dict[str, Trouble]:
        """By its queue, or its partition, what stands still or cannot be read."""
        waiting: dict[str, Waiting] = {}
        troubles: dict[str, Trouble] = {}
        for consumer in self._consumers:
            waiting |= consumer.waiting()
            if consumer.trouble is not None:
                troubles[consumer.queue] = Trouble(f"cannot be read: {consumer.trouble!r}")
        standing = self._standstill.look({place: found.settled for place, found in waiting.items()})
        held_back = {place: Trouble(_HELD_BACK) for place in standing if waiting[place].held_back}
        return standing | held_back | troubles

    async def ask_for_the_time(self) -> dict[str, Trouble]:
        """Where requests are answered; by its topic what could not be asked. The last answer goes on holding."""
        troubles: dict[str, Trouble] = {}
        for clock in self._clocks:
            try:
                await clock.ask()
            except TandemError as error:
                troubles[clock.topic] = Trouble(f"cannot be asked for the time: {error}", stops=False)
        return troubles

    async def stop(self) -> None:
        """Stop pulling; let the running batches settle within the grace period."""
        grace_s = self._settings.shutdown_grace_s
        await asyncio.gather(*(consumer.stop(grace_s) for consumer in self._consumers))

    async def disconnect(self) -> None:
        """After `stop`, or when `start` failed."""
        await ended(self._broker.stop(), self._settings.shutdown_grace_s)
