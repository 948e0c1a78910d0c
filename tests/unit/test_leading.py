"""Relays that lead in a process: all of an outbox's or not, rung for together."""

from __future__ import annotations

import pytest

from shared.publishing import Leading
from shared.publishing.doorbell import Doorbell


def test_they_are_rung_for_by_hand_only_while_every_shard_s_relay_leads_here() -> None:
    leading, doorbells = Leading(2), [Doorbell(), Doorbell()]
    assert not leading.is_here
    with leading.of(0, doorbells[0]):
        assert not leading.is_here, "who publishes to the other shard must notify"
        with leading.of(1, doorbells[1]):
            assert leading.is_here
            leading.ring()
        assert not leading.is_here
    assert [doorbell.is_rung for doorbell in doorbells] == [True, True]
    for doorbell in doorbells:
        doorbell.begin_look()
    leading.ring()
    assert [doorbell.is_rung for doorbell in doorbells] == [False, False], "nobody leads"


def test_a_relay_that_fails_leads_no_more() -> None:
    leading = Leading(1)

    def fail() -> None:
        with leading.of(0, Doorbell()):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not leading.is_here
