"""The statistics of paired rounds: exact, calibrated on equal systems, symmetric, and monotone."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compare.statistics import Estimate, compare_pairs, drifting, judge, pairs_needed
from compare.statistics.drift import DRIFT_ALPHA, drift_of
from compare.statistics.sign_flips import ALPHA, PAIRS_MIN, subset_means
from compare.statistics.verdicts import holm

MARGIN = 0.1
LOGS = st.lists(st.integers(-1_000, 1_000).map(lambda value: value / 1_000), min_size=PAIRS_MIN, max_size=10)


def estimate(logs: list[float]) -> Estimate:
    return compare_pairs([(1.0, math.exp(value)) for value in logs])


def p_by_brute_force(logs: list[float]) -> float:
    """The definition: of all ways to flip signs, twice the share that is as far out on the nearer side."""
    seen = sum(logs)
    sums = [
        sum(s * v for s, v in zip(signs, logs, strict=True))
        for signs in itertools.product([1, -1], repeat=len(logs))
    ]
    far = min(sum(value >= seen - 1e-9 for value in sums), sum(value <= seen + 1e-9 for value in sums))
    return min(1.0, 2 * far / len(sums))


@settings(max_examples=30, deadline=None)
@given(LOGS)
def test_the_p_value_is_that_of_the_definition(logs: list[float]) -> None:
    assert estimate(logs).p == pytest.approx(p_by_brute_force(logs))


@settings(max_examples=30, deadline=None)
@given(LOGS)
def test_the_interval_holds_what_the_test_does_not_refuse(logs: list[float]) -> None:
    one = estimate(logs)
    low, high = math.log(one.low), math.log(one.high)
    assert one.low <= one.ratio * (1 + 1e-9)
    assert one.ratio <= one.high * (1 + 1e-9)
    inside = low + (high - low) / 3
    assert estimate([value - inside for value in logs]).p > ALPHA or high == low
    for outside in (low - 1e-6, high + 1e-6):
        assert estimate([value - outside for value in logs]).p <= ALPHA


def test_six_pairs_give_their_lowest_and_highest_as_interval() -> None:
    one = compare_pairs([(100, value) for value in (110, 121, 130, 117, 125, 140)])
    assert [one.low, one.high] == pytest.approx([1.1, 1.4])
    assert one.confidence == pytest.approx(62 / 64)
    assert one.p == pytest.approx(2 / 64)


@pytest.mark.parametrize("pairs", range(1, PAIRS_MIN))
def test_fewer_pairs_have_no_interval_and_refuse_nothing(pairs: int) -> None:
    one = estimate([0.5] * pairs)
    assert (one.low, one.high) == (0.0, math.inf)
    assert one.p > ALPHA


@pytest.mark.parametrize("pairs", [[], [(0.0, 1.0)], [(1.0, -1.0)]])
def test_no_pairs_and_no_ratios_are_refused(pairs: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="positive"):
        compare_pairs(pairs)


@pytest.mark.parametrize(("pairs", "runs"), [(6, 1_500), (10, 250)])
def test_equal_systems_are_told_apart_no_more_often_than_said(pairs: int, runs: int) -> None:
    """A against A, heavy tails, and a machine that drifts: it is the pair that counts."""
    draw = random.Random(20261128)
    refused = covered = 0
    for _ in range(runs):
        logs = [draw.gauss(0, 0.1) + (draw.gauss(0, 1) if draw.random() < 0.1 else 0) for _ in range(pairs)]
        one = estimate(logs)
        refused += one.p <= ALPHA
        covered += one.low <= 1 <= one.high
    allowed = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    assert refused / runs <= allowed
    assert covered / runs >= 1 - allowed
    assert refused, "a test that never refuses proves nothing"


def test_of_all_outcomes_of_two_equal_systems_exactly_one_in_32_makes_a_winner() -> None:
    steps = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    said = [
        judge({"x": estimate([s * v for s, v in zip(signs, steps, strict=True)])}, ["x"], MARGIN)["x"].said
        for signs in itertools.product([1, -1], repeat=PAIRS_MIN)
    ]
    assert said.count("better") * 32 == len(said)


@settings(max_examples=40, deadline=None)
@given(LOGS)
def test_who_is_first_makes_no_difference(logs: list[float]) -> None:
    one, other = estimate(logs), estimate([-value for value in logs]).turned()
    assert (one.ratio, one.low, one.high, one.p) == pytest.approx((other.ratio, other.low, other.high, other.p))
    turned = {"x": estimate([-value for value in logs])}
    assert judge({"x": one}, ["x"], MARGIN)["x"].said == judge(turned, ["x"], MARGIN)["x"].said


@settings(max_examples=40, deadline=None)
@given(LOGS, st.floats(0, 1))
def test_a_lead_that_grows_stays_a_lead(logs: list[float], more: float) -> None:
    one, further = estimate(logs), estimate([value + more for value in logs])
    assert further.low >= one.low * (1 - 1e-9)
    assert further.high >= one.high * (1 - 1e-9)
    before, after = (judge({"x": each}, ["x"], MARGIN)["x"].said for each in (one, further))
    if before == "better" and one.ratio > 1:
        assert after == "better"


@settings(max_examples=30, deadline=None)
@given(LOGS, st.randoms(use_true_random=False))
def test_the_order_of_the_rounds_makes_no_difference(logs: list[float], shuffler: random.Random) -> None:
    shuffled = list(logs)
    shuffler.shuffle(shuffled)
    one, other = estimate(logs), estimate(shuffled)
    assert (one.ratio, one.low, one.high, one.p) == pytest.approx((other.ratio, other.low, other.high, other.p))


def balance(values: Sequence[float]) -> int:
    """Rising pairs less falling ones."""
    return sum((later > earlier) - (later < earlier) for earlier, later in itertools.combinations(values, 2))


@pytest.mark.parametrize(
    "values", [[1, 2, 3, 4, 5], [1, 3, 2, 5, 4], [2, 1, 3, 5, 4], [3, 1, 2], [1, 2], [2, 2, 5]]
)
def test_a_trend_is_as_rare_as_it_is_among_all_orders(values: list[float]) -> None:
    orders = list(itertools.permutations(range(len(values))))
    as_far_out = sum(abs(balance(order)) >= abs(balance(values)) for order in orders)
    assert drift_of(values).p == pytest.approx(as_far_out / len(orders))


def test_a_trend_is_told_by_its_factor_from_the_first_round_to_the_last_whatever_one_round_did() -> None:
    halved = [100 * 0.5 ** (n / 5) for n in range(6)]
    assert drift_of(halved).factor == pytest.approx(0.5)
    halved[2] *= 20
    assert drift_of(halved).factor == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(
    ("values", "drifts"),
    [
        ([10, 11, 12, 13, 14, 15], True),
        ([15, 14, 13, 12, 11, 10], True),
        ([10, 11, 12, 13, 15, 14], False),  # p = 1.7 %
        ([10, 10.1, 10.2, 10.3, 10.4, 10.5], False),  # within the margin
        ([10, 20, 30, 40, 50], False),  # five rounds prove nothing
        ([10], False),
        ([], False),
    ],
)
def test_a_trend_counts_when_it_is_hardly_chance_and_beyond_the_margin(values: list[float], drifts: bool) -> None:
    assert (drifting(values, MARGIN) is not None) is drifts


def test_rounds_in_no_order_seem_to_have_a_trend_no_more_often_than_said() -> None:
    draw = random.Random(20261129)
    runs, rounds = 3_000, 10
    seen = sum(
        drift_of([math.exp(draw.gauss(0, 0.2)) for _ in range(rounds)]).p <= DRIFT_ALPHA for _ in range(runs)
    )
    assert 0 < seen / runs <= DRIFT_ALPHA + 3 * math.sqrt(DRIFT_ALPHA / runs)


def test_a_drift_that_both_sides_share_does_not_hide_a_difference() -> None:
    pairs = [(1_000 / (1 + n), 1_300 / (1 + n)) for n in range(6)]
    assert judge({"x": compare_pairs(pairs)}, ["x"], MARGIN)["x"].said == "better"


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        ([0.2, 0.3, 0.25, 0.2, 0.4, 0.3], "better"),
        ([0.02, -0.03, 0.01, 0.05, -0.02, 0.0], "equivalent"),
        ([0.01, 0.02, 0.03, 0.04, 0.05, 0.06], "equivalent"),
        ([0.02, 0.03, 0.05, 0.06, 0.2, 0.25], "inconclusive"),
        ([0.2, -0.3, 0.25, 0.2, 0.4, 0.3], "inconclusive"),
        ([0.3] * 5, "inconclusive"),
    ],
)
def test_better_equivalent_and_inconclusive_are_what_the_margin_makes_them(logs: list[float], said: str) -> None:
    assert judge({"x": estimate(logs)}, ["x"], MARGIN)["x"].said == said


def test_nothing_is_claimed_of_a_figure_that_nobody_named() -> None:
    claims = judge({"x": estimate([0.5] * 6), "y": estimate([0.5] * 6)}, ["x"], MARGIN)
    assert (claims["x"].said, claims["y"].said) == ("better", "not named")


def test_of_two_figures_six_pairs_can_prove_neither_and_say_how_many_would() -> None:
    claims = judge({name: estimate([0.5] * 6) for name in "xy"}, ["x", "y"], MARGIN)
    assert {claim.said for claim in claims.values()} == {"inconclusive"}
    assert claims["x"].why.startswith("6 of 7 rounds")


def test_a_named_figure_that_could_not_be_taken_still_counts() -> None:
    assert judge({"x": estimate([0.5] * 6)}, ["x", "y"], MARGIN)["x"].said == "inconclusive"


@pytest.mark.parametrize(("figures", "pairs"), [(1, 6), (2, 7), (3, 7), (4, 8)])
def test_the_pairs_that_are_needed_are_enough_and_one_less_is_not(figures: int, pairs: int) -> None:
    assert pairs_needed(figures) == pairs
    assert figures * 2 / 2**pairs <= ALPHA < figures * 2 / 2 ** (pairs - 1) or pairs == PAIRS_MIN


def test_holm_is_what_its_paper_says() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )


def test_beyond_fifteen_pairs_subsets_are_drawn_and_always_the_same() -> None:
    draw = random.Random(3)
    values = [draw.gauss(0.1, 0.1) for _ in range(20)]
    assert subset_means(values) == subset_means(values)
    one = estimate(values)
    assert one.low < math.exp(median(values)) < one.high
    assert one.confidence == pytest.approx(0.95, abs=0.001)
