"""What a check stands on: an adapter on a real server, a channel of its own, and a handler that writes down.

A check is an async function `check_<claim>(harness)`. It is run against the real adapters and, by the proof in
`test_broken_adapters.py`, against adapters that break the claim; so it never looks inside an adapter.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from deploy.native import BrokerName, Runtime
from shared.broker.base import Broker, Delivery, Message, Prepared, PublishFailure, Settlement, Subscription
from shared.broker.connect import create_broker
from shared.errors import UnavailableError
from shared.settings import Settings
from tests.conformance.servers_seen import delete_topics

TYPE = "thing.happened"
DEADLINE_S = 60.0
"""Bounds every wait; no check measures time."""

Check = Callable[["Harness"], Awaitable[None]]
MakeBroker = Callable[[Settings, str], Broker]
Settle = Callable[[Delivery], Settlement]
_Check = TypeVar("_Check", bound=Callable[..., Any])


def only_on(system: BrokerName) -> Callable[[_Check], _Check]:
    """Mark a check of what only one of the brokers has."""

    def mark(check: _Check) -> _Check:
        check.only_on = system  # type: ignore[attr-defined]
        return check

    return mark


class Recorder:
    """A batch handler that writes down every delivery and settles as it is told."""

    def __init__(self, deadline_s: float, settle: Settle | None = None) -> None:
        self.deliveries: list[Delivery] = []
        self.batches: list[int] = []
        self.settled: list[bytes] = []
        """Bodies in the order in which they were acknowledged."""
        self.overlapped = False
        self.released = asyncio.Event()
        """Clear it and every call waits, before it settles anything, until it is set."""
        self.released.set()
        self.settle: Settle = settle or (lambda _: Settlement.ACK)
        self.deadline_s = deadline_s
        self._running = 0
        self._changed = asyncio.Event()

    async def __call__(self, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        self._running += 1
        self.overlapped |= self._running > 1
        try:
            self.deliveries += batch
            self.batches.append(len(batch))
            self._changed.set()
            await self.released.wait()
            settlements = [self.settle(delivery) for delivery in batch]
            self.settled += [d.body for d, s in zip(batch, settlements, strict=True) if s is Settlement.ACK]
            self._changed.set()
            return settlements
        finally:
            self._running -= 1

    @property
    def bodies(self) -> list[bytes]:
        """What was delivered, in order, repetitions included."""
        return [delivery.body for delivery in self.deliveries]

    def duplicates(self) -> int:
        """How many deliveries repeated an earlier one."""
        return sum(count - 1 for count in Counter(self.bodies).values())

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds. Fails, saying what was awaited, after the deadline."""
        try:
            async with asyncio.timeout(self.deadline_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within {self.deadline_s:g} s; got {len(self.deliveries)}") from None

    async def until_got(self, messages: Iterable[Message]) -> None:
        """Wait until each of the messages was delivered at least once."""
        expected = {message.body for message in messages}
        try:
            await self.until(lambda: expected <= set(self.bodies), "every message is delivered")
        except AssertionError as error:
            lost = expected - set(self.bodies)
            raise AssertionError(f"lost {len(lost)} of {len(expected)}, such as {min(lost)!r}: {error}") from None

    async def until_settled(self, messages: Iterable[Message]) -> None:
        """Wait until each of the messages was acknowledged."""
        expected = {message.body for message in messages}
        await self.until(lambda: expected <= set(self.settled), "every message is settled, none lost")


class PreparingRecorder(Recorder):
    """One that is given the next batch meanwhile; a call of `run` is what counts as a delivery.

    Told that it `holds`, it waits to `go_on` once it runs a batch with another prepared behind it.
    """

    def __init__(self, deadline_s: float, settle: Settle | None = None) -> None:
        super().__init__(deadline_s, settle)
        self.waiting: list[Sequence[Delivery]] = []
        """Batches that are prepared, and neither run nor abandoned."""
        self.in_hand: Sequence[Delivery] = ()
        self.beside = 0
        """How many were prepared while another ran."""
        self.abandoned: list[bytes] = []
        self.held_max = 0
        """Most messages that were in hand and prepared at once."""
        self.holds = False
        self.holding, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        return await (await self.prepare(batch)).run()

    async def prepare(self, batch: Sequence[Delivery]) -> Prepared:
        self.waiting.append(batch)
        self.held_max = max(self.held_max, len(self.in_hand) + sum(len(each) for each in self.waiting))
        self.beside += bool(self.in_hand)
        self._changed.set()
        return _RecordedBatch(self, batch)

    async def run(self, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        self.waiting.remove(batch)
        self.overlapped |= bool(self.in_hand)
        self.in_hand = batch
        try:
            for _ in range(5):  # as a transaction would: the next one may come meanwhile
                if not self.waiting:
                    await asyncio.sleep(0.01)
            if self.holds and self.waiting:
                self.holding.set()
                await self.go_on.wait()
            return await super().__call__(batch)
        finally:
            self.in_hand = ()

    def abandon(self, batch: Sequence[Delivery]) -> None:
        self.waiting.remove(batch)
        self.abandoned += [delivery.body for delivery in batch]


@dataclass(frozen=True)
class _RecordedBatch:
    """What it has prepared."""

    recorder: PreparingRecorder
    batch: Sequence[Delivery]

    async def run(self) -> Sequence[Settlement]:
        return await self.recorder.run(self.batch)

    async def abandon(self) -> None:
        self.recorder.abandon(self.batch)


class Harness:
    """One check's world. Entering makes nothing; leaving closes the brokers that it opened, and cleans up."""

    def __init__(
        self,
        runtime: Runtime,
        system: BrokerName,
        make: MakeBroker = create_broker,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.runtime = runtime
        self.system: BrokerName = system
        self.deadline_s = deadline_s
        self.channel = f"thing{uuid4().hex[:10]}"
        self.duplicates = 0
        """Repetitions that a check allows, counted for the report."""
        self._make = make
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        if self.system == "kafka":
            await delete_topics(self.runtime, self.channel)

    def settings(self, **overrides: Any) -> Settings:
        urls = self.runtime.server_urls()
        values: dict[str, Any] = {
            "broker": self.system,
            "http_port": 1,
            "postgres_dsn": "postgresql://unused",
            "redis_url": "redis://unused",
            "rabbit_url": urls["rabbit"],
            "kafka_bootstrap": urls["kafka"],
            "kafka_partitions": 3,
            "connect_timeout_s": DEADLINE_S,  # several checks join groups at once, on a machine that may be busy
            "publish_timeout_s": 15.0,
            "shutdown_grace_s": 5.0,
            **overrides,
        }
        return Settings(**values)

    def make(self, **overrides: Any) -> Broker:
        """An adapter that the check enters and leaves by itself."""
        return self._make(self.settings(**overrides), "conformance")

    async def broker(self, **overrides: Any) -> Broker:
        """A connected adapter, closed when the check ends."""
        return await self._stack.enter_async_context(self.make(**overrides))

    def recorder(self, settle: Settle | None = None) -> Recorder:
        return Recorder(self.deadline_s, settle)

    def preparing(self, settle: Settle | None = None) -> PreparingRecorder:
        return PreparingRecorder(self.deadline_s, settle)

    def subscription(self, subscriber: str = "tester", **overrides: Any) -> Subscription:
        # Subscribers are named per check: on Kafka a group is not bound to a topic.
        values = {"channel": self.channel, "types": frozenset({TYPE}), **overrides}
        return Subscription(subscriber=f"{subscriber}-{self.channel}", **values)

    def messages(self, count: int, keys: int = 1, prefix: str = "", **overrides: Any) -> list[Message]:
        """`count` messages in turn over `keys` keys; a body says its key and its number within the key."""
        return [
            Message(
                **{
                    "channel": self.channel,
                    "type": TYPE,
                    "key": f"{prefix}key-{index % keys}",
                    "body": f"{prefix}key-{index % keys}:{index // keys:06}".encode(),
                    "headers": {"number": str(index)},
                    **overrides,
                }
            )
            for index in range(count)
        ]

    def soon(self, act: Callable[[], None]) -> None:
        """Do it while the check is already waiting for something else."""
        asyncio.get_running_loop().call_later(0.2, act)

    def unpublishable(self, key: str) -> Message:
        """A message that this broker refuses, each in its own way, while its connection stays good."""
        if self.system == "rabbit":
            return Message(self.channel, "nobody.wants_it", key, b"unroutable")
        return Message(self.channel, TYPE, key, b"x" * 2_000_000)


async def publish_all(broker: Broker, messages: Sequence[Message]) -> None:
    """Publish and demand that everything was confirmed."""
    assert not (failures := await broker.publish(messages)), f"not confirmed: {failures[0].error!r}"


async def eventually(
    condition: Callable[[], Awaitable[Any]], what: str, deadline_s: float, interval_s: float = 0.05
) -> Any:
    """Ask until the answer is true; return it. Fails, saying what was awaited, after `deadline_s`."""
    answer: Any = None
    try:
        async with asyncio.timeout(deadline_s):
            while not (answer := await condition()):  # noqa: ASYNC110  a server's state has no event to await
                await asyncio.sleep(interval_s)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {deadline_s:g} s; last answer: {answer!r}") from None
    return answer


async def until_parked(broker: Broker, subscription: Subscription, body: bytes, deadline_s: float) -> None:
    """Publish a dead letter until the broker takes it."""
    letter = Delivery(body, {}, "", "key", redelivered=False, position="", token=None)

    async def parked() -> bool:
        try:
            await broker.publish_dead_letter(subscription, letter, {})
        except UnavailableError:
            return False
        return True

    await eventually(parked, "a dead letter is parked again", deadline_s)


async def until_no_trouble(broker: Broker, deadline_s: float) -> None:
    """Wait until the adapter tells of nothing."""

    async def all_well() -> bool:
        return not broker.troubles

    await eventually(all_well, "no trouble is left", deadline_s)


async def until_one_got(recorders: Sequence[Recorder], messages: Iterable[Message]) -> None:
    """Wait until each of the messages was delivered to at least one of several handlers."""
    expected = {message.body for message in messages}

    async def all_there() -> bool:
        return expected <= {body for recorder in recorders for body in recorder.bodies}

    await eventually(all_there, "every message is delivered to somebody, none lost", recorders[0].deadline_s)


def failed_bodies(failures: Iterable[PublishFailure]) -> list[bytes]:
    return sorted(failure.message.body for failure in failures)


def assert_in_order(bodies: Iterable[bytes], what: str = "delivered") -> None:
    """Within every key, first occurrences come in the order of publishing. Repetitions are counted elsewhere."""
    newest: dict[bytes, bytes] = defaultdict(bytes)
    seen: set[bytes] = set()
    for body in bodies:
        key, _, number = body.partition(b":")
        if body in seen:
            continue
        seen.add(body)
        assert number > newest[key], f"{what} out of order: {body!r} after {newest[key]!r}"
        newest[key] = number
