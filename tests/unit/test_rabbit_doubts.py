"""Which bindings are made anew, and when."""

from __future__ import annotations

from shared.broker.rabbit.doubts import Doubts
from tests.unit.clocks import Clock

BINDING, ANOTHER = ("order.dlx", "notification.order"), ("order.events", "order.placed")


def test_nothing_is_doubted_without_a_reason() -> None:
    assert not Doubts().take()(*BINDING)


def test_what_should_have_taken_a_message_is_made_anew_once_and_nothing_else_is() -> None:
    doubts = Doubts(Clock())
    doubts.returned(*BINDING)
    anew = doubts.take()
    assert anew(*BINDING)
    assert not anew(*ANOTHER)
    assert not doubts.take()(*BINDING)


def test_all_are_made_anew_once_as_soon_as_nothing_is_gone_for_a_second() -> None:
    clock = Clock()
    doubts = Doubts(clock)
    for _ in range(3):
        doubts.gone()
        assert not doubts.take()(*BINDING)
        clock.now += 0.9
    clock.now += 0.2
    anew = doubts.take()
    assert anew(*BINDING)
    assert anew(*ANOTHER)
    assert not doubts.take()(*BINDING)
