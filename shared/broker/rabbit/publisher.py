"""Publishes to RabbitMQ, confirmed and mandatory, on the channel below aio-pika's."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from aio_pika import RobustExchange
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq import spec

from shared.broker.base import Message, PublishFailure, Sent
from shared.broker.rabbit.declarations import RabbitDeclarations
from shared.broker.rabbit.errors import LOST, unavailable
from shared.broker.rabbit.internals import channel_of, frame_bytes_max
from shared.broker.rabbit.sent import PERSISTENT, properties_of
from shared.envelope import CONTENT_TYPE
from shared.errors import PermanentError, UnavailableError, UnroutableError

PUBLISHES_IN_FLIGHT_MAX = 500
_SHORT_STRING_BYTES_MAX = 255
_FRAME_OVERHEAD_BYTES = 64
"""Of a frame of properties: its ends, what they belong to, and the message id that aiormq adds."""
_NOT_ENCODABLE = (TypeError, ValueError, struct.error)


class RabbitPublisher:
    """`Publisher`: the keys side by side, the messages of one key each after the one before was confirmed."""

    def __init__(self, declarations: RabbitDeclarations, publish_timeout_s: float) -> None:
        self._declarations = declarations
        self._publish_timeout_s = publish_timeout_s

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        """As `Publisher.publish`."""
        chains: dict[str, list[Message]] = {}
        for message in messages:
            chains.setdefault(message.key, []).append(message)
        deadline = asyncio.get_running_loop().time() + self._publish_timeout_s
        slots = asyncio.Semaphore(PUBLISHES_IN_FLIGHT_MAX)
        failures = await asyncio.gather(
            *(self._publish_chain(chain, deadline, slots) for chain in chains.values())
        )
        return [failure for part in failures for failure in part]

    async def _publish_chain(
        self, chain: Sequence[Message], deadline: float, slots: asyncio.Semaphore
    ) -> list[PublishFailure]:
        """The messages of one key."""
        for index, message in enumerate(chain):
            try:
                async with asyncio.timeout_at(deadline), slots:
                    exchange = self._declarations.exchange(message.channel)
                    await publish_confirmed(exchange, message.type, message.body, message.headers)
            except Exception as error:  # noqa: BLE001  whatever it is: not confirmed, so the key stops here
                reason = unavailable(error) if isinstance(error, LOST) else error
                earlier = UnavailableError("an earlier event of its key was not confirmed")
                later = [PublishFailure(other, earlier) for other in chain[index + 1 :]]
                return [PublishFailure(message, reason), *later]
        return []


async def publish_confirmed(
    exchange: RobustExchange, routing_key: str, body: bytes, headers: Mapping[str, str], sent: Sent | None = None
) -> None:
    """Publish and wait for the confirmation; the caller bounds the time. What was `sent` before goes with its own
    headers and properties, and `headers` are added. Raises `UnavailableError`,
    `PermanentError` for what AMQP cannot express, or one of `LOST`."""
    with our_errors(routing_key, exchange.name):
        channel = await channel_of(exchange)
        if sent is not None:
            properties = properties_of(sent, headers)
        else:
            properties = spec.Basic.Properties(
                content_type=content_type(headers), delivery_mode=PERSISTENT, headers=dict(headers)
            )
        if headers:
            require_one_frame(properties, frame_bytes_max(channel))
        await channel.basic_publish(
            body,
            exchange=exchange.name,
            routing_key=routing_key,
            properties=properties,
            mandatory=True,
            wait=False,
        )


@contextmanager
def our_errors(routing_key: str, exchange: str) -> Iterator[None]:
    """What the client raises for one message comes out as ours; one of `LOST` as it is."""
    try:
        yield
    except PublishError as error:
        raise UnroutableError(f"RabbitMQ has no queue for {routing_key} on {exchange}") from error
    except DeliveryError as error:
        raise UnavailableError(f"RabbitMQ refused {routing_key} on {exchange}") from error
    except _NOT_ENCODABLE as error:
        raise PermanentError(f"RabbitMQ: {error!r}") from error


def require_one_frame(properties: spec.Basic.Properties, bytes_max: int) -> None:
    """Raises `PermanentError` for properties that do not fit the one frame that AMQP has for them.

    The server would close the connection, with everything else that is under way.
    """
    size = len(properties.marshal()) + _FRAME_OVERHEAD_BYTES
    if size > bytes_max:
        raise PermanentError(f"RabbitMQ: properties of {size} bytes, over the {bytes_max} of a frame")


def content_type(headers: Mapping[str, str]) -> str:
    """The property: ours in place of one that does not fit; the header keeps it whole."""
    given = headers.get("content-type", CONTENT_TYPE)
    return given if len(given.encode("utf-8", "surrogatepass")) <= _SHORT_STRING_BYTES_MAX else CONTENT_TYPE
