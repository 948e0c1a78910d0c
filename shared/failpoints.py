"""Fail points: named places where a process kills or stops itself, or raises, when it was told to.

For `make faults` and for whoever wants to see what happens. Told by `TANDEM_FAILPOINTS`, empty unless asked for:

    pipeline.after_effect=kill@20; handler:order.placed=raise*3

Entries `name=action[*times][@after]`, separated by `;`. A place of the pipeline may be meant for the subscriptions
of one channel alone: `pipeline.after_effect:share`. Actions: `kill` and `stop` (SIGKILL and SIGSTOP to the
process itself), `raise` (`PermanentError`) and `raise-transient` (`TransientError`). `@N`: from the Nth pass on,
the first unless said. `*N`: at most N times; without it a kill or a stop happens once, a raise every time.
Passes are counted by each subscription, relay, worker, scheduler, archive, requester and responder for itself,
from the start of the process.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from dataclasses import dataclass

from shared.errors import PermanentError, TransientError

BEFORE_EFFECT = "pipeline.before_effect"
"""Claimed; no handler was called. But for that of a lone event that needs one, no transaction has begun."""
AFTER_EFFECT = "pipeline.after_effect"
"""Every row of the batch is written, but that of a lone event in the inbox; the transaction is not committed."""
AFTER_COMMIT = "pipeline.after_commit"
"""Committed; the claims are not marked as done, nothing is settled."""
BEFORE_PUBLISH = "relay.before_publish"
"""The rows are read from the outbox."""
AFTER_PUBLISH = "relay.after_publish"
"""The broker has confirmed; the rows are still in the outbox."""
WORKER_LEASED = "worker.leased"
"""Steps are leased and their attempts counted; none has begun."""
WORKER_BEFORE_COMMIT = "worker.before_commit"
"""Ends and effects of leased steps are written; the transaction is not committed."""
WORKER_AFTER_COMMIT = "worker.after_commit"
"""Committed; the worker does not know it yet."""
SCHEDULER_BEFORE_COMMIT = "scheduler.before_commit"
"""A firing's job is written; the transaction is not committed."""
SCHEDULER_AFTER_COMMIT = "scheduler.after_commit"
"""Committed; the next look is still to come."""
REQUEST_SENT = "requester.sent"
"""The broker has the request; nobody has answered."""
REPLY_RECEIVED = "requester.received"
"""An answer has come; who asked does not know it yet."""
ANSWERED = "responder.answered"
"""A request was begun in time and its handler has answered; nothing of its batch is committed."""
BEFORE_REPLY = "responder.before_reply"
"""What was asked for is committed; the reply is not sent. Raised here, it never is."""
ARCHIVE_STORED = "archive.stored"
"""An object is stored and verified; what is in it is not deleted."""
HANDLER = "handler:"
"""And an event type: before the handler sees an event of it."""

PLACES = (
    BEFORE_EFFECT,
    AFTER_EFFECT,
    AFTER_COMMIT,
    BEFORE_PUBLISH,
    AFTER_PUBLISH,
    WORKER_LEASED,
    WORKER_BEFORE_COMMIT,
    WORKER_AFTER_COMMIT,
    SCHEDULER_BEFORE_COMMIT,
    SCHEDULER_AFTER_COMMIT,
    REQUEST_SENT,
    REPLY_RECEIVED,
    ANSWERED,
    BEFORE_REPLY,
    ARCHIVE_STORED,
)
_PIPELINE = "pipeline."

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_ERRORS: dict[str, type[PermanentError | TransientError]] = {
    "raise": PermanentError,
    "raise-transient": TransientError,
}
_ENTRY = re.compile(
    r"(?P<place>[a-z_]+\.[a-z_]+|handler:[a-z0-9_.]+)(?::(?P<channel>[a-z0-9_-]+))?=(?P<action>kill|stop|raise|raise-transient)"
    r"(?:\*(?P<times>[1-9]\d{0,8}))?(?:@(?P<after>[1-9]\d{0,8}))?"
)


@dataclass(frozen=True, slots=True)
class FailPoint:
    """What happens at one place: `action`, from pass `after` on, at most `times` times (None: no limit).

    `channel` is that of the subscriptions that it is meant for, empty for all.
    """

    place: str
    action: str
    times: int | None
    after: int
    channel: str = ""


def parse(text: str) -> tuple[FailPoint, ...]:
    """Read the setting. Raises ValueError, naming the entry, for an unknown place or a wrong form."""
    return tuple(_entry(part.strip()) for part in text.split(";") if part.strip())


def _entry(text: str) -> FailPoint:
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no fail point: name=kill|stop|raise|raise-transient[*times][@after]")
    place, action, channel = match["place"], match["action"], match["channel"] or ""
    if place not in PLACES and not place.startswith(HANDLER):
        raise ValueError(f"there is no place called {place!r}; there are {', '.join(PLACES)} and {HANDLER}<type>")
    if channel and not place.startswith(_PIPELINE):
        raise ValueError(f"{place!r} is no place of a subscription, which {channel!r} would say")
    once = 1 if action in _SIGNALS else None
    times = int(match["times"]) if match["times"] else once
    return FailPoint(place, action, times, int(match["after"] or 1), channel)


class FailPoints:
    """The places of one subscription, relay, worker, scheduler, archive, requester or responder, counted."""

    def __init__(self, points: tuple[FailPoint, ...]) -> None:
        self._points = points
        self._passes: Counter[str] = Counter()
        self._done: Counter[FailPoint] = Counter()

    @classmethod
    def told(cls, text: str, channel: str = "") -> FailPoints | None:
        """None where nothing is asked for, so that every place costs one comparison and no call.

        `channel` is the subscription's, for who has one.
        """
        points = tuple(point for point in parse(text) if point.channel in {"", channel})
        return cls(points) if points else None

    def has(self, place: str) -> bool:
        """Whether anything is to happen there."""
        return any(point.place == place for point in self._points)

    def reach(self, place: str) -> None:
        """Pass a place. Raises what it was told to raise, or does not return."""
        self._passes[place] += 1
        for point in self._points:
            if point.place != place or self._passes[place] < point.after:
                continue
            if point.times is not None and self._done[point] >= point.times:
                continue
            self._done[point] += 1
            if point.action in _SIGNALS:
                os.kill(os.getpid(), _SIGNALS[point.action])
            else:
                raise _ERRORS[point.action](f"the fail point {place} says so")
