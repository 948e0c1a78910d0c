"""The seam: what a service may ask of a broker, and what an adapter owes it.

Its roles are `Publisher`, `Consumer`, `DeadLetterChannel`, `ReplyChannel` and `Inspector`; an adapter is a
`Broker`, which joins them. `tests/conformance` holds every obligation written here against both real brokers; what
honestly differs between them is stated in `Capabilities`, never emulated in silence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, Self, runtime_checkable

import msgspec
from pydantic import BaseModel

from shared.broker.asking import Reply
from shared.event import Asked

HOW_TO_GO_ON = (
    "go on with the settings that it was made with; docs/operating.md says under “Changing what queues and topics "
    "were made with” how to change it and lose nothing that waits"
)
"""Ends the refusal of a queue or topic that is there and is not as the settings say."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: final wire bytes and where they go.

    `channel` is a name such as `order`; `type` the event type; messages with equal `key` stay in order.
    """

    channel: str
    type: str
    key: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Header:
    """One header exactly as it was sent: `value` as JSON has it, and `type`, which says how to read that.

    `text`; `bytes` in base64; `null`. On RabbitMQ also `text-base64` (text that is not UTF-8), `boolean`, `int8`
    to `int64`, `uint8` to `uint32`, `float32`, `float64` (what JSON has not, as text), `decimal` (as text),
    `timestamp` (seconds since 1970), `table` (headers, as objects of the same three fields), `array` (the same
    without names).
    """

    name: str
    type: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message exactly as it was sent, beside its body: headers in order, repeated ones too.

    `properties` are AMQP's, by their names there; `key` and `body_is_null` are Kafka's, where a body may be
    absent, which is not the same as empty.
    """

    headers: Sequence[Header]
    properties: Mapping[str, str | int] = field(default_factory=dict)
    key: bytes | None = None
    body_is_null: bool = False


class Delivery(msgspec.Struct, gc=False):
    """One message as the broker handed it over; a struct, since one is made for each.

    `body` and `headers` are what was sent, unchecked. `redelivered` is the broker's own hint, if it
    has one. `position` names the place for logs (`order-events/3@17`, `notification.order#42`).
    `token` belongs to the adapter.
    """

    body: bytes
    headers: Mapping[str, str]
    channel: str
    key: str | None
    redelivered: bool
    position: str
    token: Any
    sent: Callable[[Any], Sent | None] | None = None
    """Tells it from the token, for `as_sent`."""
    asked: Asked | None = None
    """Who waits for an answer to it, if somebody does."""

    def as_sent(self) -> Sent | None:
        """How exactly it was sent, for who puts it aside or gives it back; None: `headers` and `key` say all."""
        return None if self.sent is None else self.sent(self.token)


class Settlement(Enum):
    """The pipeline's answer to one delivery."""

    ACK = "ack"
    """Finished, one way or the other: never deliver it to this subscriber again."""
    RETRY = "retry"
    """Not finished and nobody's fault: deliver it again, after a pause and before what follows it in its
    partition or queue; to this consumer or, when it has gone, to another. What follows may come again too."""


BatchHandler = Callable[[Sequence[Delivery]], Awaitable[Sequence[Settlement]]]
"""Receives 1 to `batch_max` deliveries in broker order; returns one settlement for each, in the same order."""


class Prepared(Protocol):
    """A batch that was taken up and has had no effect. It is run or abandoned, once."""

    async def run(self) -> Sequence[Settlement]:
        """One settlement for each delivery, as a `BatchHandler` returns them."""

    async def abandon(self) -> None:
        """Forget it: its deliveries come again, behind what the batch before it leaves to be retried."""


@runtime_checkable
class PreparingHandler(Protocol):
    """A `BatchHandler` that can also take up a batch while it works on the one before."""

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Settlement]: ...

    async def prepare(self, deliveries: Sequence[Delivery]) -> Prepared:
        """Do what comes before a batch's effects, beside those of the batch before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Who wants what. `subscriber` is the consumer group: replicas that share the name compete.

    `types` are the event types to be delivered (a broker without routing delivers all of the channel's).
    At most `in_flight_max` messages are unsettled at once, handed over in batches of at most `batch_max`. Of large
    ones fewer are held in memory: once they have over `in_flight_bytes_max`, no more (on Kafka, up to 15 more).
    `ordered`: deliver events of one key in publishing order even with several replicas running.
    `answers`: what comes here are requests (`ReplyChannel`), which are dropped when their time is over.
    """

    channel: str
    subscriber: str
    types: frozenset[str]
    batch_max: int = 500
    in_flight_max: int = 1_000
    in_flight_bytes_max: int = 16 * 1024 * 1024
    ordered: bool = True
    answers: bool = False

    @property
    def queue(self) -> str:
        """The subscriber's own place on the channel: `notification.order`."""
        return f"{self.subscriber}.{self.channel}"

    @property
    def room_for_two(self) -> bool:
        """Whether a second full batch may be in flight beside one."""
        return self.in_flight_max >= 2 * self.batch_max


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What honestly differs. Printed as the capability matrix by the conformance suite."""

    name: str
    order_scope: str
    """Within what events keep their order: `partition` or `queue`."""
    scale_out_keeps_order: bool
    """Several replicas work at once and events of one key still stay in order."""
    replay: bool
    """A subscriber can read again what it has settled."""
    routes_by_type: bool
    """The broker itself filters by event type."""
    unroutable_detected: bool
    """Publishing what nobody subscribes to is reported to the publisher."""
    delivery_limit: bool
    """The broker itself parks a message that was delivered too often."""
    delayed_retry: bool
    request_reply: bool


@dataclass(frozen=True, slots=True)
class PublishFailure:
    """One message of a batch was not confirmed. It may have arrived all the same."""

    message: Message
    error: Exception


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue or topic, as `Broker.dead_letters` lists it."""

    queue: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a queue, topic, exchange or stream does not do its part."""

    reason: str
    """What follows its name in a sentence: `is missing`."""
    stops: bool = True
    """Nothing moves there. Else it works, though not as declared."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """How a subscription, or a dead-letter place, stands. `messages` wait for `group`: on RabbitMQ those that no
    consumer holds yet, on Kafka all that are not settled (the group's lag). `consumers` are connected.
    `destination` is where its messages are published."""

    queue: str
    destination: str
    group: str
    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the AsyncAPI document: an event type on a channel and the model of its data."""

    channel: str
    event_type: str
    model: type[BaseModel]
    subscriber: str | None = None
    """None: the service publishes it."""


class Publisher(Protocol):
    """Message Channel, the sending end."""

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        """Publish in order per key; return when each message was confirmed or failed.

        Confirmed means that the broker has the message as durably as the topology asks. A message is not
        sent before an earlier one with the same key was confirmed, unless the protocol keeps the order by
        itself; once one fails, later ones with its key fail too. Takes at most `publish_timeout_s`. Returns
        the failures, an empty list when all went well: `UnavailableError` where another attempt may
        succeed. What is wrong with one message alone says so: `UnroutableError`, or a `PermanentError`
        such as `EventTooLargeError`.
        """


class Consumer(Protocol):
    """Message Channel, the receiving end: Competing Consumers."""

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        """Start to deliver, from the oldest message that the subscriber has not settled.

        One call of `handler` at a time. Whatever it raises is logged and answered as `RETRY` for its whole
        batch. While a `PreparingHandler` works on a full batch it is asked to prepare the next, where
        `in_flight_max` and `in_flight_bytes_max` have room for both: that one is run when the one before has ended
        with nothing to be retried, and is abandoned otherwise, and before the adapter is left. A settlement that
        fails is reported through `settlement_failures` and logged, and the message is delivered again.

        Raises as `Broker.declare`, which it does first; what is refused later (a right that was taken away) is
        waited for.
        """

    @property
    def settlement_failures(self) -> Mapping[str, int]:
        """How many settlements the broker refused or never got since the start, by the queue consumed."""


class DeadLetterChannel(Protocol):
    """The place beside a subscriber's stream where goes what it could not take, and the way back from it."""

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        """Put the delivery's bytes and headers, exactly as they were sent, with `headers` added, in the
        subscriber's dead-letter queue or topic; return once confirmed. `PROPERTIES_LEFT_OUT` on the letter says
        what cannot go with it. Raises `UnavailableError`, or a `PermanentError` when the broker can never take it
        like that."""

    async def publish_retry(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        """Give the delivery's bytes, key and headers, with `headers` added, back to this subscriber alone;
        return once confirmed. Nobody else on the channel sees it, and it comes behind what waits there.

        Raises `UnroutableError` where the broker knows that the subscriber has no queue (Kafka cannot tell: the
        message waits for it), `UnavailableError` when it is not confirmed in time, a `PermanentError` when
        the message can never be taken.
        """

    async def subscribe_dead_letters(self, subscription: Subscription, group: str, handler: BatchHandler) -> None:
        """Start to deliver what is in the subscriber's dead-letter place, from the oldest message that `group`
        has not settled; `batch_max` and `in_flight_max` are the subscription's.

        Settlements and failures are as with `Consumer.subscribe`; replicas share the work and no order is kept
        among them. What is settled is gone from RabbitMQ's queue; Kafka's topic keeps it for its retention. The
        place is declared, the subscriber's own queue is not.
        """

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        """Peek at up to `limit` messages in the subscriber's dead-letter place; they stay where they are.

        On Kafka settled ones are among them, for as long as the topic keeps them.
        """


class ReplyChannel(Protocol):
    """Request-Reply with a Return Address and a Correlation Identifier. Replies are hints: any may be lost."""

    async def receive_replies(self, service: str, handler: Callable[[Reply], None]) -> None:
        """Hand over what is answered to this process from now on; once for each process, whose `service` has a
        reply topic on Kafka. Replies of others, and twice the same one, may be among them. Comes back by itself
        when the broker was away; on RabbitMQ what was asked before that is answered to nobody. Raises as
        `Broker.declare`."""

    async def publish_request(self, message: Message, correlation_id: str, timeout_s: float) -> None:
        """Publish a message that is to be answered to this process; return once it is confirmed.

        It comes as a `Delivery` with `asked`, of which `begin_by_s` is at most `timeout_s` after the broker took
        it, by the broker's clock; on RabbitMQ it is delivered within the first half of that time, or never. Raises
        `UnavailableError` (without `receive_replies`, and when it is not confirmed, it may have arrived all the
        same), `UnroutableError` where the broker can tell that nobody answers, a `PermanentError`.
        """

    async def publish_reply(self, asked: Asked, body: bytes) -> None:
        """Answer to who asked. If that process has gone, or its address is none that a requester has, nobody gets
        it and nothing is raised. Raises `UnavailableError` when the broker does not take it."""


class Inspector(Protocol):
    """How things stand. Looking changes nothing."""

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        """Size and consumers of each subscription's queue, in order, its way back included, without those that are
        not there. On Kafka a group that has never been there is behind by all of the channel. Raises
        `UnavailableError`."""

    async def dead_letter_states(self, subscriptions: Sequence[Subscription], group: str) -> list[QueueState]:
        """The same of their dead-letter places, as `group` consumes them (`subscribe_dead_letters`)."""

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        """What of all that this process declared and consumes is not as it should be, by its name on the
        broker, as it was some seconds ago; empty when all is well.

        What somebody deleted is declared again and what the server closed is opened again, within seconds of the
        moment when that is possible. A stream that stands still for a minute with something waiting is among them.
        """

    async def ping(self) -> None:
        """Raises `UnavailableError` when the broker does not answer within a second or two."""


class Broker(Publisher, Consumer, DeadLetterChannel, ReplyChannel, Inspector, Protocol):
    """All roles on one connection, as an async context manager: entering connects (bounded in time), leaving stops
    in good order. Whoever needs one role alone asks for that."""

    capabilities: Capabilities

    async def __aenter__(self) -> Self:
        """Connect. Raises `UnavailableError` when the broker does not answer in time, `ConfigurationError` when it
        refuses who asks (a wrong password)."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop pulling, let running handlers finish and settle within the grace period, disconnect."""

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        """Make sure that the channels exist, and the subscriptions' queues, dead-letter places and ways back
        (`publish_retry`) with them.

        Idempotent. From then on no event on the channel is lost to the subscriptions, running or not.
        Raises `ConfigurationError` when one of them is there with other options (nothing is changed in
        silence) or may not be declared, `UnavailableError` when the broker does not answer in time.
        """

    def asyncapi(self, title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
        """The AsyncAPI 3 document of these operations, by FastStream's own generator."""


def destination_name(system: str, channel: str, prefix: str = "") -> str:
    """The name of a channel's exchange (`order.events`) or topic (`order-events`) on `rabbit` or `kafka`."""
    return f"{prefix}{channel}.events" if system == "rabbit" else f"{prefix}{channel}-events"


BODY_BYTES_MAX = 16 * 1024 * 1024
"""Largest body of a dead letter: RabbitMQ's own limit, and as much as fits a dead-letter topic."""

HEADERS_BYTES_MAX = 48 * 1024
"""Most that a message's own headers may take: with ours they must fit one AMQP frame of 128 KiB."""

DEATH = "x-death"
"""Header that RabbitMQ adds to a message which it parks by itself: why, the newest death first."""

DEATHS = (DEATH, "x-first-death-", "x-last-death-")
"""How all headers begin that it adds then."""

PROPERTIES_LEFT_OUT = "tandem-properties-left-out"
"""Header of a letter: the AMQP properties that cannot go with it, `expiration=60000, user_id=ada`."""
