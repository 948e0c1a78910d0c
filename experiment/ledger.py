"""Keeps a ledger of every event that was meant to happen, and of what its client was told."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import orjson


class Outcome(StrEnum):
    """What the client knows about its request."""

    NOT_SENT = "not_sent"
    """Never left: its order was not placed."""
    ACKNOWLEDGED = "acknowledged"
    """Success was answered (or, for a backlog, the transaction was committed): the event must have its effect."""
    REFUSED = "refused"
    """An answer that says that nothing happened (4xx)."""
    INDETERMINATE = "indeterminate"
    """No answer, or a server error: it may have happened or not."""


@dataclass(slots=True)
class Entry:
    """One intended event. Its identity is (`event_type`, `key`, `sequence`): the order or user and its version.

    Times are seconds since the epoch, all taken from the monotonic clock of one process and one start time.
    `event_id` is known for events that were not sent over HTTP; the last four times where processes stamp
    (`experiment.stamps`): handed to the broker, confirmed by it, received, COMMIT of the effect returned.
    """

    phase: str
    event_type: str
    intended_s: float
    key: str | None = None
    sequence: int | None = None
    sent_s: float | None = None
    acknowledged_s: float | None = None
    outcome: Outcome = Outcome.NOT_SENT
    status: int | None = None
    error: str | None = None
    idempotency_key: str | None = None
    event_id: str | None = None
    relayed_s: float | None = None
    confirmed_s: float | None = None
    received_s: float | None = None
    durable_s: float | None = None

    @property
    def identity(self) -> Identity | None:
        """Type, key and sequence of the event; None while it is not known which event this became."""
        if self.key is None or self.sequence is None:
            return None
        return (self.event_type, self.key, self.sequence)


Identity = tuple[str, str, int]
"""Event type, key (id of the order or user), sequence within the key."""


def write_ledger(
    path: Path,
    entries_by_broker: Mapping[str, Iterable[Entry]],
    committed_s: Mapping[str, Mapping[Identity, float]],
) -> None:
    """Write gzipped JSON lines, an entry each, with the time at which its effect was committed (null: never)."""
    with gzip.open(path, "wb", compresslevel=3) as file:
        for broker, entries in entries_by_broker.items():
            effects = committed_s[broker]
            for entry in entries:
                committed = effects.get(entry.identity) if entry.identity else None
                file.write(orjson.dumps(_line(broker, entry, committed)) + b"\n")


def _line(broker: str, entry: Entry, committed_s: float | None) -> dict[str, object]:
    return {
        "broker": broker,
        "phase": entry.phase,
        "type": entry.event_type,
        "key": entry.key,
        "sequence": entry.sequence,
        "event_id": entry.event_id,
        "outcome": entry.outcome.value,
        "http_status": entry.status,
        "error": entry.error,
        "intended_s": _rounded(entry.intended_s),
        "sent_s": _rounded(entry.sent_s),
        "acknowledged_s": _rounded(entry.acknowledged_s),
        "relayed_s": _rounded(entry.relayed_s),
        "confirmed_s": _rounded(entry.confirmed_s),
        "received_s": _rounded(entry.received_s),
        "durable_s": _rounded(entry.durable_s),
        "committed_s": _rounded(committed_s),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
