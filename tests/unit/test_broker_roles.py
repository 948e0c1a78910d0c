"""Whatever calls itself a broker has every member of the seam's roles, with the same parameters."""

from __future__ import annotations

import inspect

import pytest

from shared.broker.base import Broker, Consumer, DeadLetterChannel, Inspector, Publisher, ReplyChannel
from shared.broker.kafka.adapter import KafkaAdapter
from shared.broker.rabbit.adapter import RabbitAdapter
from tests.conformance.broken import Sound

ROLES = (Publisher, Consumer, DeadLetterChannel, ReplyChannel, Inspector)
OWN = {"__aenter__", "__aexit__", "declare", "asyncapi"}


def members(role: type) -> set[str]:
    return {name for name in vars(role) if not name.startswith("_")}


def test_a_broker_is_its_roles_and_what_belongs_to_none_of_them() -> None:
    names = [name for role in ROLES for name in sorted(members(role))]
    assert len(names) == len(set(names)), "a member belongs to one role"
    assert set(ROLES) < set(Broker.__mro__)
    assert {name for name in vars(Broker) if not name.startswith("_")} == OWN - {"__aenter__", "__aexit__"}


@pytest.mark.parametrize("implementation", [RabbitAdapter, KafkaAdapter, Sound])
def test_every_adapter_and_the_wrapper_of_the_broken_ones_has_every_member(implementation: type) -> None:
    for name in sorted(OWN.union(*(members(role) for role in ROLES))):
        asked, given = getattr(Broker, name), getattr(implementation, name, None)
        assert given is not None, f"{implementation.__name__} has no {name}"
        if callable(asked):
            assert inspect.signature(given) == inspect.signature(asked), name
            assert inspect.iscoroutinefunction(given) == inspect.iscoroutinefunction(asked), name
        else:
            assert isinstance(given, property), name


def test_a_member_that_is_missing_is_seen() -> None:
    """Planted."""
    lacking = type("Lacking", (Sound,), {"queue_states": None})
    with pytest.raises(AssertionError, match="has no queue_states"):
        test_every_adapter_and_the_wrapper_of_the_broken_ones_has_every_member(lacking)
