"""The file in which a process writes its stamps: records of a fixed size, appended, so that a kill loses none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import NamedTuple

DIRECTORY = "EXPERIMENT_STAMPS"
"""The variable that tells a stamped process where to write."""
STAMPED: Mapping[str, Sequence[str]] = {
    process: ["experiment.stamping.process", service]
    for process, service in {"user": "user", "order": "order", "notification-consumer": "notification"}.items()
}
"""The processes that are stamped, and the module with arguments that runs in place of each: those that relay, and
the one whose effects are counted."""
_RECORD = Struct("<BQ16s8s")
_NO_DIGEST = bytes(8)
NO_EVENT = bytes(16)


class Kind(IntEnum):
    SENT = 1
    """Handed to the broker's client, in a batch."""
    CONFIRMED = 2
    """The client's answer was here: the broker has the whole batch."""
    RECEIVED = 3
    """The batch in which it came was handed to the pipeline."""
    DURABLE = 4
    """COMMIT of its effect had returned."""
    PLANTED = 5
    """Of no event: how long a planted delay really took, in place of a time."""


class Stamp(NamedTuple):
    """`event` is `event_digest`, `body` `body_digest` (zeros where no bytes are at hand); `at_ns` is of
    `time.monotonic_ns`, which all processes of a host share."""

    kind: int
    at_ns: int
    event: bytes
    body: bytes


def event_digest(source: str, event_id: str) -> bytes:
    """16 bytes that stand for an event's identity."""
    return blake2b(f"{source} {event_id}".encode(), digest_size=16).digest()


def body_digest(body: bytes) -> bytes:
    """8 bytes that stand for an event's bytes on the wire."""
    return blake2b(body, digest_size=8).digest()


def stamps_environment(directory: Path) -> dict[str, str]:
    """What a stamped process is told besides its settings."""
    return {DIRECTORY: str(directory)}


class StampFile:
    """Appends stamps, a batch with one write and no buffer."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def write(self, kind: Kind, at_ns: int, events: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Stamp a batch; each event by its digest and that of its bytes."""
        self._file.write(b"".join(_RECORD.pack(kind, at_ns, event, body or _NO_DIGEST) for event, body in events))


def read_from(path: Path, offset: int) -> tuple[Iterator[Stamp], int]:
    """The whole records from `offset` on, and where the next one will begin."""
    with path.open("rb") as file:
        file.seek(offset)
        found = file.read()
    whole = len(found) - len(found) % _RECORD.size
    return (Stamp(*row) for row in _RECORD.iter_unpack(found[:whole])), offset + whole
