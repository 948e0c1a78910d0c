"""Exponential backoff: the formula, its bounds and its jitter."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import backoff_s, jittered_s, longest_wait_s

DURATIONS = st.floats(min_value=0.001, max_value=86_400.0)
COUNTS = st.integers(min_value=0, max_value=10**9)


def test_the_wait_doubles_up_to_its_limit() -> None:
    assert [longest_wait_s(waits, 0.5, 3.0) for waits in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize(("drawn", "expected_s"), [(0.0, 4.0), (0.5, 6.0), (1.0, 8.0)])
def test_the_second_half_of_the_wait_is_drawn(drawn: float, expected_s: float) -> None:
    assert jittered_s(8.0, lambda: drawn) == expected_s
    assert backoff_s(3, 1.0, 60.0, lambda: drawn) == expected_s


@given(COUNTS, DURATIONS, DURATIONS)
def test_a_wait_stays_between_half_of_the_longest_and_the_limit(
    waits: int, initial_s: float, max_s: float
) -> None:
    longest_s = longest_wait_s(waits, initial_s, max_s)
    assert min(initial_s, max_s) <= longest_s <= max_s
    assert longest_s / 2 <= backoff_s(waits, initial_s, max_s, random.random) <= longest_s


@given(COUNTS, DURATIONS, DURATIONS)
def test_no_wait_is_shorter_than_an_earlier_one_without_its_jitter(
    waits: int, initial_s: float, max_s: float
) -> None:
    assert longest_wait_s(waits, initial_s, max_s) <= longest_wait_s(waits + 1, initial_s, max_s)
