"""Gap, recovery, duplicates and the share of one phase: pure arithmetic on made-up ledgers."""

from __future__ import annotations

import pytest

from experiment.checker import Effect, check, since
from experiment.ledger import Entry, Outcome
from faults.deliveries import DuplicateCount, duplicates_on, started_at
from faults.figures import gap_s, recovered_s, unserved, watched_until_s


def acknowledged(key: str, at_s: float, phase: str = "p") -> Entry:
    return Entry(phase, "order.placed", at_s, key, 1, at_s, at_s, Outcome.ACKNOWLEDGED)


def effect(position: int, key: str, at_s: float) -> Effect:
    return Effect(position, f"s {key}", "order.placed", key, 1, at_s)


def test_the_gap_is_what_is_beyond_the_normal() -> None:
    regular = [1.0, 1.2, 1.4, 1.6]
    assert gap_s([*regular, 5.0, 5.2], began_s=1.7, until_s=5.3) == pytest.approx(5.0 - 1.6 - 0.2)


def test_there_is_no_gap_where_effects_go_on() -> None:
    assert gap_s([1.0, 1.2, 1.4, 1.6, 1.8, 2.0], began_s=1.5, until_s=2.1) == pytest.approx(0.0)


def test_a_gap_that_lasts_to_the_end_of_the_load_is_one() -> None:
    assert gap_s([1.0, 1.2], began_s=1.3, until_s=9.0) == pytest.approx(9.0 - 1.2 - 0.2)


def test_recovery_ends_with_the_last_effect_that_came_late() -> None:
    entries = [acknowledged("a", 10.0), acknowledged("b", 11.0), acknowledged("c", 14.0)]
    committed = {("order.placed", "a", 1): 10.1, ("order.placed", "b", 1): 13.5, ("order.placed", "c", 1): 14.1}
    assert recovered_s(entries, committed, ended_s=11.5) == pytest.approx(2.0)


def failed(at_s: float, event_type: str = "order.placed") -> Entry:
    return Entry("p", event_type, at_s, None, None, at_s, None, Outcome.INDETERMINATE)


def test_an_effect_that_was_late_at_the_end_of_the_load_is_waited_for() -> None:
    entries = [acknowledged("a", 10.0), acknowledged("b", 12.0), acknowledged("c", 14.0)]
    committed = {("order.placed", "a", 1): 10.1, ("order.placed", "b", 1): 30.0, ("order.placed", "c", 1): 30.1}
    times = [10.1, 30.0, 30.1]
    assert watched_until_s(entries, committed, times) == 30.0
    assert gap_s([9.0, 10.0, *times], 10.2, 30.0) == pytest.approx(30.0 - 10.1 - 1.0), "the whole outage counts"


def test_nothing_is_waited_for_when_all_was_in_time() -> None:
    entries = [acknowledged("a", 10.0), acknowledged("b", 14.0)]
    committed = {("order.placed", "a", 1): 10.1, ("order.placed", "b", 1): 14.1}
    assert watched_until_s(entries, committed, [10.1, 14.1]) == 14.0


def test_recovery_ends_with_the_last_request_that_failed() -> None:
    entries = [failed(12.0), acknowledged("a", 12.5)]
    committed = {("order.placed", "a", 1): 12.6}
    assert recovered_s(entries, committed, ended_s=11.5) == pytest.approx(0.5)


def test_a_service_that_acknowledges_nothing_any_more_has_not_recovered() -> None:
    entries = [acknowledged("a", 10.0), acknowledged("b", 12.5), failed(12.0, "user.profile_updated")]
    committed = {("order.placed", key, 1): 12.6 for key in "ab"}
    assert recovered_s([*entries[:2], failed(13.0)], committed, ended_s=11.5) is None
    assert recovered_s(entries, committed, ended_s=11.5) is None, "the other service serves, this one does not"


def test_nothing_late_means_recovered_at_once_and_nothing_at_all_means_never() -> None:
    entry = acknowledged("a", 10.0)
    assert recovered_s([entry], {("order.placed", "a", 1): 10.2}, ended_s=11.0) == pytest.approx(0.0)
    assert recovered_s([entry], {}, ended_s=11.0) is None


def test_a_phase_is_charged_with_what_was_found_since_the_one_before() -> None:
    entries = [
        acknowledged("old", 1.0, "before"),
        acknowledged("lost-before", 1.1, "before"),
        acknowledged("x", 5.0),
    ]
    effects = [effect(1, "old", 1.1), effect(2, "x", 5.1), effect(3, "old", 5.2)]
    before = check(entries[:2], effects[:1])
    own = since(check(entries, effects), before, entries[2:], effects)
    assert own.lost == [], "that was the phase before"
    assert [found.key for found in own.duplicate_effects] == ["old"], "doubled by this phase"
    assert (own.acknowledged, own.effects) == (1, 1)
    assert not since(check(entries, effects), check(entries, effects), [], effects).duplicate_effects, "once only"


PAGE = """
process_start_time_seconds 1.79538203051e+09
# TYPE messaging_client_consumed_messages_total counter
messaging_client_consumed_messages_total{messaging_system="kafka",tandem_queue="a.b",tandem_status="done"} 40.0
messaging_client_consumed_messages_total{messaging_system="kafka",tandem_queue="a.b",tandem_status="duplicate"} 3.0
messaging_client_consumed_messages_total{messaging_system="kafka",tandem_queue="a.c",tandem_status="duplicate"} 2.0
"""


def test_duplicates_are_read_from_a_metrics_page_over_all_queues() -> None:
    assert duplicates_on(PAGE) == 5.0
    assert started_at(PAGE) == "1.79538203051e+09"


def test_a_process_that_begins_anew_counts_from_nothing() -> None:
    count = DuplicateCount(dict)
    for began, seen in (("1", 2.0), ("1", 5.0), ("2", 5.0), ("2", 5.0)):  # restarted before the third look
        count._enter(("consumer", began), seen)
    assert count.total == 10


def test_a_service_is_unserved_until_it_acknowledges_after_its_last_failure() -> None:
    entries = [failed(12.0), failed(12.5, "user.profile_updated"), acknowledged("a", 12.4)]
    assert unserved([]) == set()
    assert unserved(entries) == {"user"}
    assert unserved([*entries, failed(13.0)]) == {"order", "user"}
    assert unserved([*entries, failed(13.0), acknowledged("b", 13.5)]) == {"user"}
