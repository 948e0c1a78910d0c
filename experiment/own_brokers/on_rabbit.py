"""Looks for and deletes a run's names on a RabbitMQ of one's own, by AMQP alone: that asks for no other right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

from experiment.own_brokers.names import on_rabbit
from experiment.own_brokers.told import CONNECT_TIMEOUT_S, OwnBroker, OwnBrokerError
from shared.broker.rabbit import urls_of

_Step = Callable[[Any, str], Awaitable[Any]]


async def require_unused(own: OwnBroker) -> None:
    """Raises `OwnBrokerError` when something of a name that the run will create is there."""
    exchanges, queues = on_rabbit(own.prefix)
    there = await _each(own, exchanges, lambda channel, name: channel.get_exchange(name, ensure=True))
    there += await _each(own, queues, lambda channel, name: channel.get_queue(name, ensure=True))
    if there:
        raise OwnBrokerError(f"RabbitMQ at {own.where} has {there[0]} already, which the run would create")


async def require_deletable(own: OwnBroker) -> None:
    """On RabbitMQ who may create a name may delete it, by the same right."""


async def delete_all(own: OwnBroker) -> None:
    """Delete every name of the run; what is not there is deleted already. Raises `OwnBrokerError`."""
    exchanges, queues = on_rabbit(own.prefix)
    await _each(own, queues, lambda channel, name: channel.queue_delete(name))
    await _each(own, exchanges, lambda channel, name: channel.exchange_delete(name))


async def version(own: OwnBroker) -> str:
    """As the server introduces itself."""
    async with _connected(own) as connection:
        assert connection.transport is not None
        told = connection.transport.connection.server_properties.get("version", b"")
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)


async def _each(own: OwnBroker, names: list[str], step: _Step) -> list[str]:
    """Do it to each name; returns those that are there."""
    there: list[str] = []
    async with _connected(own) as connection:
        channel = await connection.channel()
        for name in names:
            if channel.is_closed:  # the server closes it with every refusal
                channel = await connection.channel()
            try:
                await step(channel, name)
            except ChannelNotFoundEntity:
                continue
            there.append(name)
    return there


@asynccontextmanager
async def _connected(own: OwnBroker) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    try:
        async with await aio_pika.connect(urls_of(own.settings)[0], timeout=CONNECT_TIMEOUT_S) as connection:
            yield connection
    except (AMQPError, OSError) as error:
        raise OwnBrokerError(f"RabbitMQ at {own.where} refuses: {error}") from error
