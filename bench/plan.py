"""What a run does: which contenders, on how many events each, and about how long it takes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from bench.commands import POOLS
from bench.rows import (
    ALONE,
    BY_CELERY,
    BY_HAND,
    CELERY,
    FULL,
    LARGER,
    LEASED,
    LEASED_START,
    LEASED_WAITING,
    LIMITS,
    LONG,
    LONG_PEAK,
    OF_ANSWERS,
    OF_JOBS,
    OF_MONEY,
    OF_ORDERS,
    ONE_BY_ONE,
    ORDER_P50,
    ORDER_P99,
    ORDER_TASKS,
    ORDERS,
    OVERLAPPED,
    PAIR,
    PEAK,
    ROWS,
    START,
    START_UP,
    TANDEM,
    TASK_P50,
    TASK_P99,
    UNTRACED,
    Contender,
)

_SHARES: Mapping[str, float] = {
    ONE_BY_ONE: 0.25,
    **dict.fromkeys((*OF_MONEY, *OF_JOBS), 0.5),
    **dict.fromkeys((*BY_CELERY, LEASED, LEASED_WAITING, START, LEASED_START), 0.15),
    **dict.fromkeys(OF_ORDERS, 0.4),
    ORDER_TASKS: 0.2,
    **dict.fromkeys(OF_ANSWERS, 0.02),
}
"""Of the events of a round: what is slow gets fewer, so that no contender works for more than some seconds."""
_TRIAL_SHARE = 0.05
_TOGETHER = (PAIR, ALONE)
_TIMES: Mapping[str, int] = {"rabbit": 1, "kafka": 3}
_MORE = (*_TOGETHER, LARGER, UNTRACED, BY_HAND, OVERLAPPED)
"""These get so many times the events: on Kafka those of a round take 0.25 s, of which one wait is a tenth."""
_MORE_MAX = 60_000
"""At most so many, or those of a round where these are more. One process and two never get more: they stand frozen
while theirs are published, and must not for long."""
_TURNS: Mapping[str, int] = {TANDEM: 3}
"""So often it runs in a round, whose figure is the median: a drain that takes a second or less is a third slower
in one turn than in the next, and most rows are divided by this one."""
_WITH_ANOTHER = {
    **dict.fromkeys((ORDER_P50, ORDER_P99), ORDERS),
    **dict.fromkeys((TASK_P50, TASK_P99), ORDER_TASKS),
    PEAK: TANDEM,
    LONG_PEAK: LONG,
}
"""Measured in one go."""

_START_S = 1.3
"""To start a contender, and to check what it did."""
_SERVERS_S = 15.0
_LIMITS_S = 15.0
_START_UP_S = 35.0
_PAST_ROWS_PER_S = 200_000
_PER_EVENT_S: Mapping[str, float] = {
    ONE_BY_ONE: 1 / 4_000,
    **dict.fromkeys(OF_MONEY, 1 / 4_000),
    **dict.fromkeys(OF_JOBS, 1 / 5_000),
    **dict.fromkeys(BY_CELERY, 1 / 400),
    **dict.fromkeys(OF_ORDERS, 1 / 1_000),
    ORDER_TASKS: 1 / 100,
    **dict.fromkeys(OF_ANSWERS, 1 / 50),
}
"""To publish it and to do it, on two cores that are idle otherwise: what they come to, a whole run has taken."""
_ELSE_S = 1 / 9_000
"""The same of all others."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of these names on these brokers.

    In each round a contender gets `events` or a share of them, the one with the long backlog `long_events`.
    `past_rows` are in the full inbox before; `pool` is Celery's, if no trial is to choose it.
    """

    rounds: int
    events: int
    long_events: int
    past_rows: int
    brokers: tuple[str, ...]
    rows: tuple[str, ...]
    seed: int
    pool: str | None = None

    @property
    def contenders(self) -> list[Contender]:
        """Each once."""
        return list(dict.fromkeys(contender for pair in self._pairs for contender in pair))

    @property
    def _pairs(self) -> list[tuple[Contender, Contender]]:
        """What is divided by what."""
        return [(row.ours, row.theirs) for row in ROWS if row.name in self.rows and row.broker in self.brokers]

    @property
    def names(self) -> set[str]:
        """Of the contenders."""
        return {contender.name for contender in self.contenders}

    def events_of(self, contender: Contender) -> int:
        """How many it gets in a round."""
        name = _WITH_ANOTHER.get(contender.name, contender.name)
        if name == LONG:
            return self.long_events
        if name in _MORE:
            most = _MORE_MAX if name in _TOGETHER else max(_MORE_MAX, self.events)
            return min(most, _TIMES[contender.broker] * self.events)
        return int(self.events * _SHARES.get(name, 1.0))

    def turns_of(self, contender: Contender) -> int:
        """How often it runs in a round."""
        return _TURNS.get(_runs_as(contender).name, 1)

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait beside those that run, in the row that is about it."""
        return self.long_events // 3

    @property
    def trial_events(self) -> int:
        """How many each pool of Celery's gets, so that the fastest is found; 0 where none is looked for."""
        return 0 if self.pool or CELERY not in self.names else int(self.events * _TRIAL_SHARE)

    @property
    def measured(self) -> list[Contender]:
        """Those that run: what is measured with another is not among them, the other is."""
        return list(dict.fromkeys(map(_runs_as, self.contenders)))

    def order_of(self, number: int) -> list[Contender]:
        """Those that run, as often as they do in this round: in an order drawn anew, in which what is divided by
        each other stands together. A machine is faster in one minute than in the next."""
        groups: list[set[Contender]] = []
        for pair in self._pairs:
            runs = set(map(_runs_as, pair))
            joined = [group for group in groups if group & runs]
            groups = [*(group for group in groups if group not in joined), runs.union(*joined)]
        draw = random.Random(f"{self.seed}/{number}")  # noqa: S311 - an order, not a secret
        turns = [[one for one in sorted(group, key=str) for _ in range(self.turns_of(one))] for group in groups]
        drawn = [draw.sample(group, len(group)) for group in turns]
        return [contender for group in draw.sample(drawn, len(drawn)) for contender in group]

    @property
    def work(self) -> int:
        """Events published and drained in all: the length of the progress bar."""
        return self.rounds * sum(2 * self.turns_of(each) * self.events_of(each) for each in self.measured)

    @property
    def estimate_s(self) -> float:
        """About how long it takes on two cores that are idle otherwise."""
        trial_s = len(POOLS) * (_START_S + self.trial_events * _PER_EVENT_S[CELERY]) if self.trial_events else 0
        rounds_s = self.rounds * sum(
            self.turns_of(one) * (_START_S + self.events_of(one) * _PER_EVENT_S.get(one.name, _ELSE_S))
            for one in self.measured
        )
        limits_s = self.rounds * len(self.brokers) * _LIMITS_S if LIMITS in self.rows else 0
        start_up_s = len(self.brokers) * _START_UP_S if START_UP in self.rows else 0
        past_s = self.past_rows / _PAST_ROWS_PER_S if FULL in self.names else 0
        return _SERVERS_S * (1 + len(self.brokers)) + trial_s + rounds_s + limits_s + start_up_s + past_s


def _runs_as(contender: Contender) -> Contender:
    """Itself, or what it is measured with."""
    return Contender(_WITH_ANOTHER.get(contender.name, contender.name), contender.broker)
