"""What the client's errors mean to us: one table, in which a test looks up every exception class of the client.

A process that starts refuses what will not pass (`ConfigurationError`): a wrong password, a right that it has not,
a queue that is there with other arguments. One that runs waits all the same: somebody may give the right back, and
until then its events are in the outbox or in the queue.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

from aio_pika.exceptions import MessageProcessError, QueueEmpty
from aiormq import exceptions as amqp

from shared.broker.base import HOW_TO_GO_ON
from shared.errors import ConfigurationError, TandemError, UnavailableError, UnroutableError

LOST = (amqp.AMQPError, ConnectionError, OSError, TimeoutError, RuntimeError, asyncio.InvalidStateError)
"""What aio-pika raises when connection or channel is gone or refused (`RuntimeError`: it is closed for good)."""

ERRORS: Final[Mapping[type[Exception], type[TandemError]]] = {
    **dict.fromkeys(
        (
            amqp.AMQPError,
            amqp.AMQPConnectionError,
            amqp.IncompatibleProtocolError,  # also of a proxy in front of a server that is not up yet
            amqp.ConnectionClosed,
            amqp.ConnectionSyntaxError,
            amqp.ConnectionFrameError,
            amqp.ConnectionCommandInvalid,
            amqp.ConnectionChannelError,
            amqp.ConnectionUnexpectedFrame,
            amqp.ConnectionResourceError,
            amqp.ConnectionNotAllowed,  # also when too many are connected, and others will leave
            amqp.ConnectionInternalError,
            amqp.AMQPChannelError,
            amqp.ChannelClosed,
            amqp.ChannelNotFoundEntity,  # somebody deleted it: it is declared again
            amqp.ChannelLockedResource,
            amqp.ChannelInvalidStateError,
            amqp.DuplicateConsumerTag,
            amqp.ProtocolSyntaxError,
            # Also of a virtual host that is not there: aiormq does not say why the server hangs up on it.
            amqp.InvalidFrameError,
            amqp.DeliveryError,  # a full queue, a memory alarm
            MessageProcessError,
            QueueEmpty,
        ),
        UnavailableError,
    ),
    amqp.PublishError: UnroutableError,
    **dict.fromkeys(
        (
            amqp.AuthenticationError,
            amqp.ProbableAuthenticationError,
            amqp.ConnectionNotImplemented,
            amqp.ChannelAccessRefused,
            amqp.ChannelPreconditionFailed,
            amqp.MethodNotImplemented,
        ),
        ConfigurationError,
    ),
}


def meaning(error: BaseException) -> type[TandemError]:
    """Our class for the client's error, or for the network's."""
    return next((ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS), UnavailableError)


def refusal(error: Exception) -> TandemError:
    """Our error for one that a process meets while it starts."""
    cause = error.__cause__  # of whatever the network raises aiormq makes an error of its own
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConfigurationError(f"RabbitMQ's certificate is not accepted: {cause.verify_message}")
    if meaning(error) is not ConfigurationError:
        return unavailable(error)
    if isinstance(error, amqp.ChannelPreconditionFailed):
        return ConfigurationError(f"RabbitMQ has it with other arguments: {error}: {HOW_TO_GO_ON}")
    return ConfigurationError(f"RabbitMQ refuses: {error}")


def unavailable(error: Exception) -> UnavailableError:
    """Our error for one that a running process meets."""
    return UnavailableError(f"RabbitMQ: {error!r}")
