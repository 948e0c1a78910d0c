"""Publishes to RabbitMQ, confirmed and mandatory, on the channel below aio-pika's."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from aio_pika import RobustExchange
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq import spec

from shared.broker.base import Message, PublishFailure, Sent
from shared.broker.rabbit.declarations import RabbitDeclarations
from shared.broker.rabbit.errors import LOST, unavailable
from shared.broker.rabbit.internals import channel_of, frame_bytes_max
from shared.broker.rabbit.sending import Portion, publish_at_once
from shared.broker.rabbit.sent import PERSISTENT, properties_of
from shared.envelope import CONTENT_TYPE
from shared.errors import PermanentError, UnavailableError, UnroutableError

PUBLISHES_IN_FLIGHT_MAX = 500
_SHORT_STRING_BYTES_MAX = 255
_FRAME_OVERHEAD_BYTES = 64
"""Of a frame of properties: its ends, what they belong to, and the message id that aiormq adds."""
_NOT_ENCODABLE = (TypeError, ValueError, struct.error)


class RabbitPublisher:
    """`Publisher`: the first message of each key at once, every other one after the one before was confirmed."""

    def __init__(self, declarations: RabbitDeclarations, publish_timeout_s: float) -> None:
        self._declarations = declarations
        self._publish_timeout_s = publish_timeout_s

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        """As `Publisher.publish`."""
        deadline = asyncio.get_running_loop().time() + self._publish_timeout_s
        if _go_at_once(messages):  # as nearly all that the relay has
            return await self._publish_plain(messages, deadline)
        chains: dict[str, deque[Message]] = {}
        for message in messages:
            chains.setdefault(message.key, deque()).append(message)
        failures: list[PublishFailure] = []
        while chains:
            firsts = [chain.popleft() for chain in islice(chains.values(), PUBLISHES_IN_FLIGHT_MAX)]
            failed = await self._publish_each(firsts, deadline)
            for failure in failed:
                earlier = UnavailableError("an earlier event of its key was not confirmed")
                later = chains.pop(failure.message.key)
                failures += [failure, *(PublishFailure(message, earlier) for message in later)]
            for message in firsts:
                if message.key in chains and not chains[message.key]:
                    del chains[message.key]
        return failures

    async def _publish_each(self, messages: Sequence[Message], deadline: float) -> list[PublishFailure]:
        """Publish these, of which no two have the same key: those without headers, as events are, as one write."""
        plain: dict[str, list[Message]] = {}
        parts: list[Awaitable[list[PublishFailure]]] = []
        for message in messages:
            if message.headers:
                parts.append(self._publish_one(message, deadline))
            else:
                plain.setdefault(message.channel, []).append(message)
        parts += [self._publish_plain(part, deadline) for part in plain.values()]
        failed = [await parts[0]] if len(parts) == 1 else await asyncio.gather(*parts)
        return [failure for part in failed for failure in part]

    async def _publish_plain(self, messages: Sequence[Message], deadline: float) -> list[PublishFailure]:
        """Publish messages without headers to one channel."""
        name = ""
        try:
            exchange = self._declarations.exchange(messages[0].channel)
            name = exchange.name
            async with asyncio.timeout_at(deadline):
                told = [(message.type, CONTENT_TYPE, message.body) for message in messages]
                confirmations = await publish_at_once(await channel_of(exchange), Portion(name, told))
        except Exception as error:  # noqa: BLE001  whatever it is: nothing was sent
            if isinstance(error, _NOT_ENCODABLE) and len(messages) > 1:  # one of them is to blame
                parts = [await self._publish_plain([message], deadline) for message in messages]
                return [failure for part in parts for failure in part]
            return [_failure(message, name, error) for message in messages]
        errors = await confirmations.outcomes(deadline)
        return [
            _failure(message, name, error)
            for message, error in zip(messages, errors, strict=True)
            if error is not None
        ]

    async def _publish_one(self, message: Message, deadline: float) -> list[PublishFailure]:
        """Publish one by itself."""
        name = ""
        try:
            exchange = self._declarations.exchange(message.channel)
            name = exchange.name
            async with asyncio.timeout_at(deadline):
                await publish_confirmed(exchange, message.type, message.body, message.headers)
        except Exception as error:  # noqa: BLE001  whatever it is: not confirmed, so the key stops here
            return [_failure(message, name, error)]
        return []


def _go_at_once(messages: Sequence[Message]) -> bool:
    """Whether one write is enough: they go to one channel, without headers, none behind another of its key."""
    keys = {message.key for message in messages}
    if not 0 < len(keys) == len(messages) <= PUBLISHES_IN_FLIGHT_MAX:
        return False
    channel = messages[0].channel
    return not any(message.headers or message.channel != channel for message in messages)


def _failure(message: Message, exchange: str, error: Exception) -> PublishFailure:
    """A message that was not confirmed, with the reason in our words."""
    try:
        with our_errors(message.type, exchange):
            raise error  # noqa: TRY301
    except LOST as lost:
        return PublishFailure(message, unavailable(lost))
    except Exception as ours:  # noqa: BLE001  it is told, whatever it is
        return PublishFailure(message, ours)


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
