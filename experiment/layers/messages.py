"""The file by which a process of a layer is given what it shall carry: a line of JSON for each message."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from shared.broker import Message


def write_messages(path: Path, messages: Iterable[Message]) -> None:
    """Write them, in order; bodies are text."""
    rows = ([each.channel, each.type, each.key, each.body.decode()] for each in messages)
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))


def read_messages(path: Path) -> list[Message]:
    """Read them again, byte by byte the same."""
    rows = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [Message(channel, event_type, key, body.encode()) for channel, event_type, key, body in rows]
