"""Computes availability and recovery from the ledger and the times of the effects. Pure functions.

All times are seconds since the epoch, of one clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from experiment.ledger import Entry, Identity, Outcome

_FAILED = (Outcome.REFUSED, Outcome.INDETERMINATE)
LATE_S = 1.0
"""An effect that is committed this long after its event was acknowledged came late."""


def watched_until_s(
    entries: Sequence[Entry], committed_s: Mapping[Identity, float], times: Sequence[float]
) -> float:
    """Until when effects can be expected.

    It is the end of the load; or, when an effect of the load was late then, the first effect after it.

    `times` are those at which effects were committed.
    """
    end_s = max((entry.intended_s for entry in entries), default=0.0)

    def late(entry: Entry) -> bool:
        acknowledged_s = end_s if entry.acknowledged_s is None else entry.acknowledged_s
        committed = committed_s.get(entry.identity, 0.0) if entry.identity else 0.0
        return acknowledged_s + LATE_S < end_s < committed

    if not any(map(late, entries)):
        return end_s
    return min((time for time in times if time > end_s), default=end_s)


def gap_s(committed_s: Sequence[float], began_s: float, until_s: float) -> float:
    """The longest time without a committed effect around the fault, beyond the normal.

    Looked at from the last effect before the fault on, until `until_s`: later there need be nothing to take
    effect. The normal is the longest such time before the fault, which is taken off.
    """
    times = sorted(committed_s)
    before = [time for time in times if time <= began_s]
    after = [time for time in times if began_s < time <= until_s]
    normal = max((later - earlier for earlier, later in pairwise(before)), default=0.0)
    around = [*before[-1:], *after]
    if not after or after[-1] < until_s - LATE_S:
        around.append(until_s)
    longest = max((later - earlier for earlier, later in pairwise(around)), default=0.0)
    return max(0.0, longest - normal)


def recovered_s(entries: Sequence[Entry], committed_s: Mapping[Identity, float], ended_s: float) -> float | None:
    """From the end of the fault until the system was caught up; None when it never was.

    Caught up: no request fails any more, and every effect is committed within a second of its acknowledgement. So
    it is the time from the end of the fault to the last request that was refused or not answered, or to the last
    effect that came late, whichever is later; 0 when neither was after that end. It never was when an effect is
    missing, or when a service acknowledged nothing after the last request to it that failed.
    """
    last_s = ended_s
    for entry in entries:
        if entry.outcome in _FAILED:
            last_s = max(last_s, _sent_s(entry))
        elif entry.outcome is Outcome.ACKNOWLEDGED and entry.acknowledged_s is not None:
            committed = committed_s.get(entry.identity) if entry.identity else None
            if committed is None:
                return None
            if committed - entry.acknowledged_s > LATE_S:
                last_s = max(last_s, committed)
    return None if unserved(entries) else last_s - ended_s


def unserved(entries: Sequence[Entry]) -> set[str]:
    """The services that acknowledged nothing after the last request to them that failed."""
    served_s: dict[str, float] = {}
    failed_s: dict[str, float] = {}
    for entry in entries:
        if entry.outcome in _FAILED:
            failed_s[_service(entry)] = max(_sent_s(entry), failed_s.get(_service(entry), 0.0))
        elif entry.outcome is Outcome.ACKNOWLEDGED and entry.acknowledged_s is not None:
            served_s[_service(entry)] = max(_sent_s(entry), served_s.get(_service(entry), 0.0))
    return {service for service, at_s in failed_s.items() if at_s > served_s.get(service, 0.0)}


def _sent_s(entry: Entry) -> float:
    return entry.sent_s or entry.intended_s


def _service(entry: Entry) -> str:
    """The service that was asked: `order` or `user`."""
    return entry.event_type.partition(".")[0]
