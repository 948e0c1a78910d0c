"""Adapters broken on purpose: each wraps the real one and breaks one obligation, as real bugs do.

`tests/conformance/breaks.py` says which check must catch each, and what the check must say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from shared.broker.asking import TIMEOUT_S_MAX, Reply
from shared.broker.base import (
    BatchHandler,
    Broker,
    Capabilities,
    DeadLetter,
    Delivery,
    Message,
    Operation,
    Prepared,
    PreparingHandler,
    PublishFailure,
    QueueState,
    Settlement,
    Subscription,
    Trouble,
)
from shared.broker.connect import create_broker
from shared.event import Asked
from shared.settings import Settings
from tests.conformance.harness import TYPE


class Sound:
    """The real adapter, untouched."""

    def __init__(self, settings: Settings, client_name: str) -> None:
        self.real: Broker = create_broker(settings, client_name)
        self.capabilities: Capabilities = self.real.capabilities

    async def __aenter__(self) -> Self:
        await self.real.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.real.__aexit__(*exc_info)

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        await self.real.declare(channels, subscriptions)

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        return await self.real.publish(messages)

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        await self.real.publish_dead_letter(subscription, delivery, headers)

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        async def handle(batch: Sequence[Delivery]) -> Sequence[Settlement]:
            return await self.handle(handler, batch)

        wrapped = Preparing(self, handler) if isinstance(handler, PreparingHandler) else handle
        await self.real.subscribe(subscription, wrapped)

    async def subscribe_dead_letters(self, subscription: Subscription, group: str, handler: BatchHandler) -> None:
        async def handle(batch: Sequence[Delivery]) -> Sequence[Settlement]:
            return await self.handle(handler, batch)

        await self.real.subscribe_dead_letters(subscription, group, handle)

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        await self.real.publish_retry(subscription, delivery, headers)

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        """Between the real adapter and the check's handler."""
        return await handler(batch)

    async def prepare(self, handler: PreparingHandler, batch: Sequence[Delivery]) -> Prepared:
        """The same of a batch that is taken up ahead."""
        return await handler.prepare(batch)

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        return await self.real.dead_letters(subscription, limit)

    async def receive_replies(self, service: str, handler: Callable[[Reply], None]) -> None:
        await self.real.receive_replies(service, handler)

    async def publish_request(self, message: Message, correlation_id: str, timeout_s: float) -> None:
        await self.real.publish_request(message, correlation_id, timeout_s)

    async def publish_reply(self, asked: Asked, body: bytes) -> None:
        await self.real.publish_reply(asked, body)

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        return await self.real.queue_states(subscriptions)

    async def dead_letter_states(self, subscriptions: Sequence[Subscription], group: str) -> list[QueueState]:
        return await self.real.dead_letter_states(subscriptions, group)

    async def ping(self) -> None:
        await self.real.ping()

    def asyncapi(self, title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
        return self.real.asyncapi(title, version, operations)

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        return self.real.troubles

    @property
    def settlement_failures(self) -> Mapping[str, int]:
        return self.real.settlement_failures


@dataclass(frozen=True)
class Preparing:
    """Lies between the real adapter and a check's handler that prepares."""

    adapter: Sound
    handler: PreparingHandler

    async def __call__(self, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        return await self.adapter.handle(self.handler, batch)

    async def prepare(self, batch: Sequence[Delivery]) -> Prepared:
        return await self.adapter.prepare(self.handler, batch)


class AcknowledgesFirst(Sound):
    """Settles before the handler has done anything."""

    def __init__(self, settings: Settings, client_name: str) -> None:
        super().__init__(settings, client_name)
        self._running: set[asyncio.Future[Sequence[Settlement]]] = set()

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        self._running.add(asyncio.ensure_future(handler(batch)))
        return [Settlement.ACK] * len(batch)

    async def __aexit__(self, *exc_info: object) -> None:
        await super().__aexit__(*exc_info)
        for task in self._running:
            task.cancel()


class NeverSettles(Sound):
    """Forgets what the handler answered."""

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        await handler(batch)
        return [Settlement.RETRY] * len(batch)


class PublishesUnconfirmed(Sound):
    """Calls everything confirmed; the last message of a batch never left."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        await self.real.publish(messages[:-1])
        return []


class HidesFailures(Sound):
    """Sends everything, tells of no failure."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        await self.real.publish(messages)
        return []


class ReordersWithinAKey(Sound):
    """Publishes the newest first."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        return await self.real.publish(list(reversed(messages)))


class OvertakesAFailure(Sound):
    """Goes on with a key whose earlier message failed."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        failures: list[PublishFailure] = []
        for message in messages:
            failures += await self.real.publish([message])
        return failures


class LosesHeaders(Sound):
    """Sends the body alone."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        return await self.real.publish([replace(message, headers={}) for message in messages])


class SwallowsARetry(Sound):
    """Settles a RETRY like an ACK."""

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        await handler(batch)
        return [Settlement.ACK] * len(batch)


class CommitsPastARetry(Sound):
    """Retries from memory what the broker was already told to forget."""

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        waiting = list(batch)
        for _ in range(3):
            answers = await handler(waiting)
            waiting = [d for d, a in zip(waiting, answers, strict=True) if a is Settlement.RETRY]
            if not waiting:
                break
        return [Settlement.ACK] * len(batch)


class AcknowledgesAfterAnError(Sound):
    """A handler that raises passes for one that has finished."""

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        try:
            return await handler(batch)
        except RuntimeError:
            return [Settlement.ACK] * len(batch)


class DeliversTwice(Sound):
    """Hands every batch over two times and says nothing."""

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        await handler(batch)
        return await handler(batch)


class DropsOddMessages(Sound):
    """Skips what it cannot read, as a parser that fails does."""

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        good = [d for d in batch if not any("\\x" in value for value in d.headers.values())]
        if good:
            await handler(good)
        return [Settlement.ACK] * len(batch)


class IgnoresBounds(Sound):
    """Takes all that it can get."""

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        await super().subscribe(
            replace(subscription, batch_max=1_000, in_flight_max=1_000, in_flight_bytes_max=2**40), handler
        )


@dataclass(frozen=True)
class _RunsAnyway:
    """A batch that was prepared, and has its effects whatever became of the one before."""

    prepared: Prepared

    async def run(self) -> Sequence[Settlement]:
        return await self.prepared.run()

    async def abandon(self) -> None:
        await self.prepared.run()


class RunsWhatWasPrepared(Sound):
    """Abandons nothing."""

    async def prepare(self, handler: PreparingHandler, batch: Sequence[Delivery]) -> Prepared:
        return _RunsAnyway(await handler.prepare(batch))


class PreparesNothing(Sound):
    """Hides that a handler prepares."""

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        async def handle(batch: Sequence[Delivery]) -> Sequence[Settlement]:
            return await handler(batch)

        await self.real.subscribe(subscription, handle)


class DeclaresOnlyOnce(Sound):
    """Never looks again at what it has declared."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        inside: Any = self.real
        await inside._tending.stop()
        if hasattr(inside, "_restoring"):
            await inside._restoring.stop()
        return self


class DeliversWhatWasTakenBack(Sound):
    """Reads Kafka as its clients do when nobody says otherwise."""

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        inside: Any = self.real
        framework = inside._subscriptions._broker
        subscriber = framework.subscriber
        framework.subscriber = lambda *topics, **options: subscriber(
            *topics, **{**options, "isolation_level": "read_uncommitted"}
        )
        await super().subscribe(subscription, handler)


class CountsMarkers(Sound):
    """Has the end of every transaction wait for the subscriber."""

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        states = await self.real.queue_states(subscriptions)
        return [replace(state, messages=state.messages + 1) for state in states]


class ForgetsDeadlines(Sound):
    """Has a request begun whenever somebody gets to it."""

    async def publish_request(self, message: Message, correlation_id: str, _timeout_s: float) -> None:
        await self.real.publish_request(message, correlation_id, TIMEOUT_S_MAX)


class LosesDeadLetters(Sound):
    """Says that a dead letter is parked before anybody has it."""

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        return


class GivesBackToEverybody(Sound):
    """Publishes to the channel again."""

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        again = Message(
            subscription.channel, TYPE, delivery.key or "", delivery.body, {**delivery.headers, **headers}
        )
        await self.real.publish([again])


class LosesWhatItGivesBack(Sound):
    """Does not wait for a confirmation that never comes."""

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        return


class ConsumesDeadLetters(Sound):
    """A look uses the letters up."""

    looked = False

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        if self.looked:
            return []
        self.looked = True
        return await self.real.dead_letters(subscription, limit)
