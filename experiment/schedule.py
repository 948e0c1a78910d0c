"""Plans the load: which request is sent when, and which broker is first in a round. Equal for equal seeds."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from deploy.topology import BROKERS, BrokerName
from experiment.workload import Steady

Kind = Literal["register", "place", "pay", "cancel", "update"]
EVENT_TYPES: dict[Kind, str] = {
    "register": "user.registered",
    "place": "order.placed",
    "pay": "order.paid",
    "cancel": "order.cancelled",
    "update": "user.profile_updated",
}
_REGISTRATIONS_PER_S = 50.0
_BURST_SHARE = 0.1
"""The part of each second into which a burst brings its requests."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One request. `at_s` counts from the start of the schedule; `user` is an index into the users;
    `order` is, for `pay` and `cancel`, the number of the operation that places the order."""

    number: int
    kind: Kind
    at_s: float
    user: int
    order: int | None = None


def plan_registrations(users: int) -> list[Operation]:
    """A registration of each user, 50 a second."""
    return [Operation(number, "register", number / _REGISTRATIONS_PER_S, number) for number in range(users)]


def plan_steady(steady: Steady, users: int, duration_s: float, seed: str) -> list[Operation]:
    """The steady load of `duration_s` in the order of time; follow-ups of the last orders come after its end."""
    rng = random.Random(seed)  # noqa: S311 - load, not secrets
    planned: list[tuple[float, Kind, int, int | None]] = []
    for order, at_s in enumerate(_arrivals(steady, steady.orders_per_s, duration_s, f"{seed}-orders")):
        planned.append((at_s, "place", rng.randrange(users), order))
        draw = rng.random()
        if draw < steady.pay_share + steady.cancel_share:
            kind: Kind = "pay" if draw < steady.pay_share else "cancel"
            planned.append((at_s + steady.follow_up_after_s, kind, planned[-1][2], order))
    if steady.profile_updates_per_s:
        times_s = _arrivals(steady, steady.profile_updates_per_s, duration_s, f"{seed}-updates", offset=0.5)
        hot = drawn_users(rng, users, steady.key_skew, len(times_s))
        planned += [(at_s, "update", user, None) for at_s, user in zip(times_s, hot, strict=True)]
    planned.sort(key=lambda row: row[0])
    number_of = {order: number for number, (_, kind, _, order) in enumerate(planned) if kind == "place"}
    return [
        Operation(number, kind, at_s, user, None if order is None or kind == "place" else number_of[order])
        for number, (at_s, kind, user, order) in enumerate(planned)
    ]


def _arrivals(steady: Steady, per_s: float, duration_s: float, seed: str, offset: float = 0.0) -> list[float]:
    """When requests come: of a Poisson process, given their number, the times are independent and uniform."""
    count = round(per_s * duration_s)
    if steady.arrivals != "poisson":
        even = [(number + offset) / per_s for number in range(count)]
        return [_in_a_burst(at_s) for at_s in even] if steady.arrivals == "bursts" else even
    draw = random.Random(seed)  # noqa: S311
    return sorted(draw.uniform(0, duration_s) for _ in range(count))


def _in_a_burst(at_s: float) -> float:
    second = int(at_s)
    return second + (at_s - second) * _BURST_SHARE


def drawn_users(rng: random.Random, users: int, skew: float, count: int) -> list[int]:
    """Indices of users by a Zipf law with exponent `skew` (0: all alike): the first is the hottest."""
    weights = list(accumulate(1 / rank**skew for rank in range(1, users + 1)))
    return rng.choices(range(users), cum_weights=weights, k=count)


def turns(seed: int, round_number: int) -> tuple[BrokerName, ...]:
    """The order of the brokers in a round's steady phase: drawn in every odd round, reversed in the one after it.

    The backlog phase of the round goes in the reverse order, so neither is always the first or the second.
    """
    pair = (round_number - 1) // 2
    order = list(BROKERS)
    random.Random(f"{seed}-turns-{pair}").shuffle(order)  # noqa: S311
    return tuple(order if round_number % 2 else reversed(order))
