"""Shows what could not be processed; nothing is changed.

That is what the dead-letter service keeps, by cause; while it is down, what waits for it in the dead-letter queues
or topics.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.errors import DeployError
from deploy.show.printable import printable
from deploy.topology import MAIL_SUBSCRIPTIONS, SUBSCRIPTIONS
from shared.broker import DeadLetter, Subscription, create_broker
from shared.dead_letter import headers as dead_letter
from shared.errors import TandemError
from shared.settings import Settings

_WAITING = ("waiting in", "kind", "type", "id", "error", "attempts", "since")
_KEPT = ("queue", "type", "error", "letters", "of them", "first seen", "last seen", "fingerprint")
_TIMEOUT_S = 10.0


def print_dead_letters(service_url: str, broker: Callable[[], Mapping[str, Any]], limit: int) -> None:
    """Print up to `limit` causes or, where the service does not answer, letters of every subscriber that wait.

    `broker` says as settings which broker it is and where; it is asked only when it is needed.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)  # a pipe has no width
    url = f"{service_url}/dead-letters/groups"
    try:
        answer = httpx.get(url, timeout=_TIMEOUT_S, trust_env=False).raise_for_status()
    except httpx.HTTPError:
        console.print("the dead-letter service does not answer; its places hold:")
        _print(console, _WAITING, [_waiting(letter) for letter in _peek(broker(), limit)])
    else:
        _print(console, _KEPT, [_kept(group) for group in answer.json()["items"][:limit]])


def _print(console: Console, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        console.print("no dead letters")
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(escape(printable(text)) for text in row))
    console.print(table)


def _kept(group: dict[str, Any]) -> tuple[str, ...]:
    states = ", ".join(f"{count} {state}" for state, count in group["states"].items() if count)
    return (
        f"{group['subscriber']}.{group['channel']}",
        group["type"] or "?",
        f"{group['error_type']}: {group['error_message']}"[:80],
        str(group["count"]),
        states,
        group["first_seen_at"][:19],
        group["last_seen_at"][:19],
        group["fingerprint"][:12],
    )


def _peek(broker: Mapping[str, Any], limit: int) -> list[DeadLetter]:
    """What lies in the places, without the receipts; on Kafka settled letters, too, while the topic has them."""
    try:
        found = asyncio.run(_read(_settings(broker), limit))
    except TandemError as error:
        raise DeployError(f"the dead letters could not be read: {error}") from error
    return [letter for letter in found if letter.headers.get(dead_letter.KIND) != dead_letter.Kind.RECEIPT]


async def _read(settings: Settings, limit: int) -> list[DeadLetter]:
    async with create_broker(settings, "tandem-dead-letters") as broker:
        found: list[DeadLetter] = []
        for subscriber, channel in (*SUBSCRIPTIONS, *MAIL_SUBSCRIPTIONS):
            wanted = Subscription(channel=channel, subscriber=subscriber, types=frozenset())
            found += await broker.dead_letters(wanted, limit)
        return found


def _settings(broker: Mapping[str, Any]) -> Settings:
    # Only the broker is used; the rest must merely be there.
    unused: dict[str, Any] = {"http_port": 1, "postgres_dsn": "postgresql://", "redis_url": "redis://"}
    return Settings.from_environment(**broker, **unused)


def _waiting(letter: DeadLetter) -> tuple[str, ...]:
    headers = letter.headers
    error = f"{headers.get(dead_letter.ERROR_TYPE, '?')}: {headers.get(dead_letter.ERROR_MESSAGE, '')}"
    kind, identity = _envelope(letter)
    since = headers.get(dead_letter.FAILED_AT, "")
    why = headers.get(dead_letter.KIND, dead_letter.Kind.FAILED.value)
    return (letter.queue, why, kind, identity, error[:80], headers.get(dead_letter.ATTEMPTS, ""), since)


def _envelope(letter: DeadLetter) -> tuple[str, str]:
    """Type and id as far as the bytes can be read: a dead letter may be anything."""
    try:
        document = orjson.loads(letter.body)
    except orjson.JSONDecodeError:
        return "?", f"({len(letter.body)} bytes that are no JSON)"
    if not isinstance(document, dict):
        return "?", "?"
    return str(document.get("type", "?")), str(document.get("id", "?"))
