"""Availability and recovery, from the ledger and the times of the effects. Pure functions.

All times are seconds since the epoch, of one clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from compare.ledger import Entry, Identity, Outcome

LATE_S = 1.0
"""An effect that is committed this long after its event was acknowledged came late."""


def gap_s(committed_s: Sequence[float], began_s: float, until_s: float) -> float:
    """The longest time without a committed effect around the fault, beyond the normal.

    Looked at from the last effect before the fault on, until `until_s`, the end of the load: later there is
    nothing to take effect. The normal is the longest such time before the fault, which is taken off.
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
    effect that came late, whichever is later; 0 when neither was after that end.
    """
    last_s = ended_s
    for entry in entries:
        if entry.outcome in (Outcome.REFUSED, Outcome.INDETERMINATE):
            last_s = max(last_s, entry.sent_s or ended_s)
        elif entry.outcome is Outcome.ACKNOWLEDGED and entry.acknowledged_s is not None:
            committed = committed_s.get(entry.identity) if entry.identity else None
            if committed is None:
                return None
            if committed - entry.acknowledged_s > LATE_S:
                last_s = max(last_s, committed)
    return last_s - ended_s
