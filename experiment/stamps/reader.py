"""Reads the stamps that a set of services wrote since it was last asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiment.stamping import Kind, read_from


@dataclass(slots=True)
class Times:
    """When an event passed each place for the first time (monotonic nanoseconds), and its bytes' digests there.

    `arrival` is its place in the order of first receipts, `deliveries` how often it was handed over.
    """

    sent_ns: int | None = None
    confirmed_ns: int | None = None
    received_ns: int | None = None
    durable_ns: int | None = None
    sent_body: bytes | None = None
    received_body: bytes | None = None
    arrival: int = 0
    deliveries: int = 0

    @property
    def marks(self) -> tuple[int | None, int | None, int | None, int | None]:
        """The four in the order of the way: sent, confirmed, received, durable."""
        return self.sent_ns, self.confirmed_ns, self.received_ns, self.durable_ns

    @property
    def complete(self) -> bool:
        return None not in self.marks


class StampReader:
    """The stamps of one set of services, by event; those of a phase are dropped when it has been looked at."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._offsets: dict[Path, int] = {}
        self._received = 0
        self.times: dict[bytes, Times] = {}
        """By `event_digest`."""
        self.planted_s: list[float] = []
        """How long planted delays really took."""

    def read(self) -> None:
        """Take in what was written since. Blocks."""
        for path in sorted(self.directory.glob("*.stamps")):
            stamps, self._offsets[path] = read_from(path, self._offsets.get(path, 0))
            for kind, at_ns, event, body in stamps:
                if kind == Kind.PLANTED:
                    self.planted_s.append(at_ns / 1e9)
                    continue
                times = self.times.get(event)
                if times is None:
                    times = self.times[event] = Times()
                self._received += kind == Kind.RECEIVED
                _enter(times, kind, at_ns, body, self._received)

    def forget(self) -> None:
        """Begin anew: what was read so far has been looked at."""
        self.times.clear()
        self.planted_s.clear()


def _enter(times: Times, kind: int, at_ns: int, body: bytes, place: int) -> None:
    if kind == Kind.SENT:
        if times.sent_ns is None:
            times.sent_ns, times.sent_body = at_ns, body
    elif kind == Kind.CONFIRMED:
        times.confirmed_ns = times.confirmed_ns or at_ns
    elif kind == Kind.RECEIVED:
        times.deliveries += 1
        if times.received_ns is None or at_ns < times.received_ns:  # files of several consumers are read in turns
            times.received_ns, times.received_body, times.arrival = at_ns, body, place
    else:
        times.durable_ns = times.durable_ns or at_ns
