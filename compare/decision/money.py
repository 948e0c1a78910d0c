"""What a million effects cost, from what was used in each round and a sheet of prices."""

from __future__ import annotations

from compare.decision.preferences import Prices
from compare.document import BacklogRound, BrokerFigures
from deploy.topology import BrokerName

_MILLION = 1_000_000
_HOUR_S = 3_600


def by_round(broker: BrokerName, one: BrokerFigures, prices: Prices) -> list[float | None]:
    """The price of a million effects in each backlog; None where a round has no rate or no measured broker.

    The CPU time of the broker, PostgreSQL, Redis and the services while the backlog was drained, and the broker's
    memory for as long as a million effects take at that rate. Idle hours, disks, networks and people are left out.
    """
    return [_price(broker, each, prices) for each in one.backlog_rounds]


def _price(broker: BrokerName, each: BacklogRound, prices: Prices) -> float | None:
    if not each.cpu_effects or not each.effects_per_s or each.broker_memory_mib is None:
        return None
    parts = (broker, "postgres", "redis", f"{broker}_services")
    core_s = sum(each.cpu_s.get(part, 0.0) for part in parts) / each.cpu_effects * _MILLION
    hours = _MILLION / each.effects_per_s / _HOUR_S
    return core_s / _HOUR_S * prices.core_hour + each.broker_memory_mib / 1_024 * hours * prices.gib_hour
