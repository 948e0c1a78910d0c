"""Ratios pair the rates of one round."""

from __future__ import annotations

import pytest

from bench.report import compare
from bench.rows import BY_HAND, CELERY, TANDEM, Contender


def _round(tandem: float, by_hand: float, celery: float) -> dict[Contender, float]:
    return {
        Contender(TANDEM, "kafka"): tandem,
        Contender(BY_HAND, "kafka"): by_hand,
        Contender(CELERY, "rabbit"): celery,
    }


def test_ratios_pair_rates_of_the_same_round() -> None:
    rows = compare([_round(8, 10, 1), _round(400, 800, 50), _round(30, 40, 2)])
    by_hand, celery = sorted(rows, key=lambda row: row.floor)
    assert (by_hand.ratio_min, by_hand.ratio_median, by_hand.ratio_max) == (0.5, 0.75, 0.8)
    assert (celery.ratio_min, celery.ratio_median, celery.ratio_max) == (8, 8, 15)


@pytest.mark.parametrize(("tandem", "holds"), [(49, False), (50, True)])
def test_a_median_under_its_floor_does_not_hold(tandem: float, holds: bool) -> None:
    by_hand = compare([_round(tandem, 100, 1)])[0]
    assert by_hand.floor == 0.5
    assert by_hand.holds is holds


def test_a_broker_that_was_not_run_has_no_row() -> None:
    assert {row.broker for row in compare([_round(1, 1, 1)])} == {"kafka"}
