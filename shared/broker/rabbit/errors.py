"""What the client's errors mean to us."""

from __future__ import annotations

import asyncio

from aio_pika.exceptions import AMQPError

from shared.errors import ConfigurationError, UnavailableError

LOST = (AMQPError, ConnectionError, OSError, TimeoutError, RuntimeError, asyncio.InvalidStateError)
"""What aio-pika raises when the connection or the channel is gone (`RuntimeError`: it is closed for good)."""


def unavailable(error: Exception) -> UnavailableError:
    """Our error for the client's, naming it."""
    return UnavailableError(f"RabbitMQ: {error!r}")


def differs(error: Exception) -> ConfigurationError:
    """Our error for a declaration that the server has otherwise."""
    return ConfigurationError(f"RabbitMQ has it with other arguments: {error}")
