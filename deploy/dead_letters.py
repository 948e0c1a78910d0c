"""Lists what waits in the dead-letter queues or topics of the running stack; nothing is taken out."""

import asyncio
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy import containers, stack
from deploy.errors import DeployError
from deploy.topology import SUBSCRIPTIONS, BrokerName
from shared import dead_letter
from shared.broker.base import DeadLetter, Subscription
from shared.broker.connect import create_broker
from shared.errors import TandemError
from shared.settings import Settings

_COLUMNS = ("waiting in", "type", "id", "error", "attempts", "since")


def print_dead_letters(limit: int) -> int:
    """Print up to `limit` letters of every subscriber. Returns the exit code."""
    broker = stack.running_broker()
    if broker is None:
        raise DeployError("nothing is up; `make up-rabbit` or `make up-kafka` starts everything")
    try:
        letters = asyncio.run(_read(_settings(broker), limit))
    except TandemError as error:
        raise DeployError(f"the dead letters could not be read: {error}") from error
    console = Console(width=None if sys.stdout.isatty() else 160)  # a pipe has no width
    if not letters:
        console.print("no dead letters")
        return 0
    table = Table(*_COLUMNS)
    for letter in letters:
        table.add_row(*_row(letter))
    console.print(table)
    return 0


async def _read(settings: Settings, limit: int) -> list[DeadLetter]:
    async with create_broker(settings, "tandem-dead-letters") as broker:
        found: list[DeadLetter] = []
        for subscriber, channel in SUBSCRIPTIONS:
            wanted = Subscription(channel=channel, subscriber=subscriber, types=frozenset())
            found += await broker.dead_letters(wanted, limit)
        return found


def _settings(broker: BrokerName) -> Settings:
    native = stack.native_stack()
    if native is None:
        address = containers.settings(broker)
    elif broker == "rabbit":
        address = {"rabbit_url": native.server_urls()["rabbit"]}
    else:
        address = {"kafka_bootstrap": native.server_urls()["kafka"]}
    # Only the broker is used; the rest must merely be there.
    unused: dict[str, Any] = {"http_port": 1, "postgres_dsn": "postgresql://", "redis_url": "redis://"}
    return Settings.from_environment(broker=broker, **address, **unused)


def _row(letter: DeadLetter) -> tuple[str, ...]:
    headers = letter.headers
    error = f"{headers.get(dead_letter.ERROR_TYPE, '?')}: {headers.get(dead_letter.ERROR_MESSAGE, '')}"
    kind, identity = _envelope(letter)
    since = headers.get(dead_letter.FAILED_AT, "")
    return (letter.queue, kind, identity, error[:80], headers.get(dead_letter.ATTEMPTS, ""), since)


def _envelope(letter: DeadLetter) -> tuple[str, str]:
    """Type and id as far as the bytes can be read: a dead letter may be anything."""
    import orjson

    try:
        document = orjson.loads(letter.body)
    except orjson.JSONDecodeError:
        return "?", f"({len(letter.body)} bytes that are no JSON)"
    if not isinstance(document, dict):
        return "?", "?"
    return str(document.get("type", "?")), str(document.get("id", "?"))
