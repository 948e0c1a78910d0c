"""Faults that a stamped process plants when a file asks for them: what a comparison must find, or else its word is
worth nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

import orjson

from shared.broker import Message

_FILE = "planted.json"
UNKNOWN_SCHEMA = "urn:tandem:schema:poison:0"


@dataclass(frozen=True, slots=True)
class Planted:
    """What is planted.

    `delay_s`: each transaction of a request begins so much later, all of them at once. `slowdown`: after each
    batch the consumer stands still for this share of the time since the last one; 0.25 leaves four fifths of its
    speed.
    `poison`: beside this share of the events that the relay publishes goes another that no subscriber can read.
    `wire`: names of `WIRE`, each done to one event between its stamps at the relay and at the consumer.
    """

    delay_s: float = 0.0
    slowdown: float = 0.0
    poison: float = 0.0
    wire: tuple[str, ...] = ()


@contextmanager
def planted(directory: Path, what: Planted) -> Iterator[None]:
    """The processes that write their stamps to `directory` plant `what` meanwhile."""
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f"{_FILE}.new"
    fresh.write_bytes(orjson.dumps(asdict(what)))
    fresh.replace(directory / _FILE)
    try:
        yield
    finally:
        (directory / _FILE).unlink()


class Plants:
    """What is planted now, as one process sees it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        self._seen: tuple[int, int] | None = None
        self._now = Planted()
        self._open: list[str] = []
        self._owed = 0.0
        """Of poison, in messages."""

    def now(self) -> Planted:
        """Looks at the file each time, which takes two microseconds."""
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino)
            if seen != self._seen:
                document = orjson.loads(self._path.read_bytes())
                self._now = Planted(**{**document, "wire": tuple(document["wire"])})
                self._seen, self._open = seen, list(self._now.wire)
        except FileNotFoundError:
            self._seen, self._now, self._open = None, Planted(), []
        return self._now

    def tampered(self, messages: Sequence[Message]) -> Sequence[Message]:
        """What is to be published in place of `messages`; each fault is planted once."""
        self._owed += self.now().poison * len(messages)
        if not self._open and self._owed < 1:
            return messages
        changed = list(messages)
        while self._owed >= 1:
            self._owed -= 1
            changed.append(_poison(messages[0]))
        for name in list(self._open):
            if WIRE[name](changed, messages):
                self._open.remove(name)
        return changed


Tamper = Callable[[list[Message], Sequence[Message]], bool]
"""Changes a list of messages, which began as the other one, and says whether it could."""


def _to_one(which: int, change: Callable[[list[Message], Message], None]) -> Tamper:
    """Change what becomes of one message whose key has no other in the batch: each fault hits another one."""

    def tamper(changed: list[Message], messages: Sequence[Message]) -> bool:
        keys = Counter(message.key for message in messages)
        alone = [message for message in messages if keys[message.key] == 1]
        if which >= len(alone) or alone[which] not in changed:
            return False
        change(changed, alone[which])
        return True

    return tamper


def _lose(changed: list[Message], one: Message) -> None:
    changed.remove(one)


def _double(changed: list[Message], one: Message) -> None:
    """The same change under another id: nothing but the check itself can tell."""
    changed.append(replace(one, body=_with(one.body, id=str(uuid4()))))


def _deliver_again(changed: list[Message], one: Message) -> None:
    changed.append(one)


def _corrupt(changed: list[Message], one: Message) -> None:
    data = orjson.loads(one.body)["data"]
    changed[changed.index(one)] = replace(one, body=_with(one.body, data={**data, "total_amount": 1}))


def _reorder(changed: list[Message], _messages: Sequence[Message]) -> bool:
    first: dict[str, int] = {}
    for place, message in enumerate(changed):
        if message.key in first:
            earlier = first[message.key]
            changed[earlier], changed[place] = changed[place], changed[earlier]
            return True
        first[message.key] = place
    return False


def _poison(like: Message) -> Message:
    """An event of a schema that nobody knows, about something of its own."""
    key = str(uuid4())
    data = {**orjson.loads(like.body)["data"], "order_id": key, "user_id": key}
    about = {"id": str(uuid4()), "subject": key, "partitionkey": key}
    return replace(like, key=key, body=_with(like.body, **about, dataschema=UNKNOWN_SCHEMA, data=data))


WIRE: dict[str, Tamper] = {
    "reordered": _reorder,
    "lost": _to_one(0, _lose),
    "duplicate_effects": _to_one(1, _double),
    "duplicate_deliveries": _to_one(2, _deliver_again),
    "corrupted": _to_one(3, _corrupt),
}
"""By the name under which it must be found."""


def _with(body: bytes, **attributes: object) -> bytes:
    return orjson.dumps({**orjson.loads(body), **attributes})
