"""Relays that lead in a process: all of an outbox's or not, woken together."""

from __future__ import annotations

import pytest

from shared.publishing import Leading


def test_they_are_woken_by_hand_only_while_every_shard_s_relay_leads_here() -> None:
    leading = Leading(2)
    woken: list[int] = []
    assert not leading.is_here
    with leading.of(0, lambda: woken.append(0)):
        assert not leading.is_here, "who publishes to the other shard must notify"
        with leading.of(1, lambda: woken.append(1)):
            assert leading.is_here
            leading.wake()
        assert not leading.is_here
    assert woken == [0, 1]
    leading.wake()
    assert woken == [0, 1], "nobody leads"


def test_a_relay_that_fails_leads_no_more() -> None:
    leading = Leading(1)

    def fail() -> None:
        with leading.of(0, lambda: None):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not leading.is_here
