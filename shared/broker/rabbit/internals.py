"""All that the adapter uses of FastStream's, aio-pika's, aiormq's and pamqp's inside, which promise none of it.

requirements.in holds the four below their next versions for this file's sake, and
tests/unit/test_client_internals.py says what is gone when one is raised.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import aiormq
from aio_pika import RobustConnection, RobustExchange
from aio_pika.abc import AbstractRobustChannel, AbstractRobustConnection
from faststream.rabbit import RabbitBroker
from pamqp import decode, encode

Decoder = Callable[[bytes], tuple[int, Any]]
"""How many bytes a value takes, and the value."""


def use_connection_class(broker: RabbitBroker, connection_class: type[RobustConnection]) -> None:
    """Have FastStream connect with this class; it has no option for it. Before the broker connects."""
    broker._connection_kwargs["connection_class"] = connection_class


async def channel_of(exchange: RobustExchange) -> aiormq.Channel:
    """The channel below aio-pika's. With `wait=False` its `basic_publish` leaves out a wait for the socket before
    the wait for the confirmation, which would let only one publish at a time into the channel."""
    return await channel_below(cast(AbstractRobustChannel, exchange.channel))


async def channel_below(channel: AbstractRobustChannel) -> aiormq.Channel:
    """The same of a channel of aio-pika's, once all is declared on it again that was: who publishes to an exchange
    that is not there yet has it closed once more, and then aio-pika leaves it so."""
    await channel.ready()
    return cast(aiormq.Channel, await channel.get_underlay_channel())


async def open_again(exchange: RobustExchange) -> None:
    """The channel of the exchange, if it is closed. Raises one of `LOST`."""
    channel = cast(AbstractRobustChannel, exchange.channel)
    await channel.restore()  # waits for aio-pika, if it is about to
    if channel.is_closed:  # while all was declared on it
        await channel.reopen()


def frame_bytes_max(channel: aiormq.Channel) -> int:
    """The largest frame that the server takes: for a larger one it closes the connection."""
    agreed: int = channel.connection.connection_tune.frame_max  # 0: there is no limit
    return agreed or sys.maxsize


async def open_channel(connection: AbstractRobustConnection) -> aiormq.abc.AbstractChannel:
    """A channel below aio-pika's, which would wait for a lost connection and then be restored with it. Raises
    `ConnectionError` while there is none."""
    transport = connection.transport
    if transport is None:
        raise ConnectionError("not connected")
    return await transport.connection.channel(publisher_confirms=False)


def replace_decoders(of_arguments: Mapping[str, Decoder], of_table_values: Mapping[bytes, Decoder]) -> None:
    """Have the codec read arguments, by their AMQP domain, and values in tables, by their tag, with these. For the
    whole process; once is enough, and twice does no harm."""
    decode.METHODS.update(of_arguments)
    decode.TABLE_MAPPING.update(of_table_values)


def replace_encoders(of_arguments: Mapping[str, Callable[[Any], bytes]]) -> None:
    """Have the codec write arguments, by their AMQP domain, with these; for the whole process."""
    encode.METHODS.update(of_arguments)
