"""Brokers of one's own: told by the environment, used in place of started ones, and left as they were."""

from experiment.own_brokers.guard import delete_leftovers, guarded, versions_of
from experiment.own_brokers.told import NONE_OWN, ONLY_WHERE, OwnBrokerError, OwnBrokers, take_from

__all__ = [
    "NONE_OWN",
    "ONLY_WHERE",
    "OwnBrokerError",
    "OwnBrokers",
    "delete_leftovers",
    "guarded",
    "take_from",
    "versions_of",
]
