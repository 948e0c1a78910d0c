"""Request-Reply on RabbitMQ by direct reply-to: no queue, and a return address that RabbitMQ itself writes.

A request must go out on the channel by which its answer comes back, so requests have one of their own. RabbitMQ
stamps no message with the time at which it took it. So half of a request's time is given to the queue, where the
server's clock ends it (`expiration`), and half to the process that it is handed to, by that process's own clock
from when it arrived: together they are never more than the whole, and no two clocks are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustChannel
from aiormq import spec

from shared.broker.asking import TIMEOUT_MS, Reply, timeout_header, timeout_s_of
from shared.broker.base import Message
from shared.broker.rabbit.arriving import Arrived
from shared.broker.rabbit.connection import RabbitConnection, say_goodbye
from shared.broker.rabbit.declarations import RabbitDeclarations
from shared.broker.rabbit.internals import channel_below, channel_of, frame_bytes_max
from shared.broker.rabbit.publisher import content_type, our_errors, require_one_frame
from shared.broker.rabbit.sent import DIRECT_REPLY, PERSISTENT
from shared.errors import UnavailableError
from shared.event import Asked

_log = structlog.get_logger(__name__)

_ADDRESS_START = f"{DIRECT_REPLY}."
_TRANSIENT = 1


def asked(raw: Arrived, headers: Mapping[str, str], arrived_s: float) -> Asked | None:
    """Who waits for an answer to a message that arrived at that moment of `time.monotonic()`. Only addresses of
    direct reply-to are answered: any other name is a queue, and may be anybody's."""
    timeout_s = timeout_s_of(headers)
    if timeout_s is None:
        return None
    properties = raw.properties
    address = properties.reply_to or ""
    return Asked(
        reply_to=address if address.startswith(_ADDRESS_START) else "",
        correlation_id=str(properties.correlation_id or ""),
        begin_by_s=arrived_s + timeout_s / 2,
    )


class RabbitReplies:
    """`ReplyChannel`."""

    def __init__(
        self, connection: RabbitConnection, declarations: RabbitDeclarations, publish_timeout_s: float
    ) -> None:
        self._connection = connection
        self._declarations = declarations
        self._publish_timeout_s = publish_timeout_s
        self._channel: AbstractRobustChannel | None = None
        self._handler: Callable[[Reply], None] | None = None
        self._cut_off = False

    async def receive_replies(self, _service: str, handler: Callable[[Reply], None]) -> None:
        """As `ReplyChannel.receive_replies`."""
        self._handler = handler
        async with self._connection.setting_up():
            self._channel = await self._open()

    async def _open(self) -> AbstractRobustChannel:
        """A channel that consumes what is answered; aio-pika brings both back. Raises one of `LOST`."""
        connection: Any = await self._connection.client()
        channel: AbstractRobustChannel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        source = await channel.declare_queue(DIRECT_REPLY, passive=True)
        await source.consume(self._arrive, no_ack=True)
        return channel

    async def _arrive(self, raw: AbstractIncomingMessage) -> None:
        if self._handler is not None:
            self._handler(Reply(str(raw.correlation_id or ""), raw.body))

    async def publish_request(self, message: Message, correlation_id: str, timeout_s: float) -> None:
        """As `ReplyChannel.publish_request`."""
        headers: dict[str, Any] = {**message.headers, TIMEOUT_MS: timeout_header(timeout_s)}
        exchange = self._declarations.exchange(message.channel).name
        async with self._connection.asking(self._publish_timeout_s):
            if self._channel is None:
                raise UnavailableError("nobody here receives replies yet")
            channel = await channel_below(self._channel)  # it consumes: else the server closes it for a request
            with our_errors(message.type, exchange):
                properties = spec.Basic.Properties(
                    content_type=content_type(headers),
                    delivery_mode=PERSISTENT,
                    headers=headers,
                    reply_to=DIRECT_REPLY,
                    correlation_id=correlation_id,
                    expiration=str(max(1, int(timeout_s * 500))),
                )
                require_one_frame(properties, frame_bytes_max(channel))
                await channel.basic_publish(
                    message.body,
                    exchange=exchange,
                    routing_key=message.type,
                    properties=properties,
                    mandatory=True,
                    wait=False,
                )

    async def publish_reply(self, asked: Asked, body: bytes) -> None:
        """As `ReplyChannel.publish_reply`. The server drops what is for a channel that has gone."""
        if not asked.reply_to.startswith(_ADDRESS_START):
            return
        async with self._connection.asking(self._publish_timeout_s):
            channel = await channel_of(await self._declarations.default_exchange())
            with our_errors(asked.reply_to, ""):
                properties = spec.Basic.Properties(
                    content_type=content_type({}), delivery_mode=_TRANSIENT, correlation_id=asked.correlation_id
                )
                await channel.basic_publish(
                    body, exchange="", routing_key=asked.reply_to, properties=properties, wait=False
                )

    async def tend(self) -> None:
        """Consume anew if the server closed the channel and aio-pika left it so: at the second look, since it may
        be about to. Raises one of `LOST`."""
        gone = self._channel
        closed = gone is not None and gone.is_closed
        if gone is not None and closed and self._cut_off:
            _log.warning("rabbit.receives_replies_anew")
            self._channel = await self._open()
            await say_goodbye(gone.close())
            closed = False
        self._cut_off = closed

    async def stop(self) -> None:
        """What is answered from now on is dropped."""
        self._handler = None
        if self._channel is not None:
            await say_goodbye(self._channel.close())
