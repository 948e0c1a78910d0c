"""Workload files: every bad field is named, and the schedule made from a good one is the same every time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import cramjam
import pytest
import yaml

from compare.command_line import DEFAULT_WORKLOAD, main
from compare.run import BACKLOG, STEADY, plan
from compare.statistics import pairs_needed
from deploy.topology import BROKERS
from experiment.payload import note
from experiment.schedule import plan_steady, turns
from experiment.workload import PAYLOAD_BYTES_MAX, WarmUp, Workload, WorkloadError, load_workload
from services.order.domain import NOTE_LENGTH_MAX

DOCUMENT = yaml.safe_load(DEFAULT_WORKLOAD.read_text())


def write(path: Path, document: object) -> Path:
    place = path / "workload.yml"
    place.write_text(yaml.safe_dump(document))
    return place


@pytest.mark.parametrize("file", sorted(DEFAULT_WORKLOAD.parent.glob("*.yml")), ids=lambda path: path.stem)
def test_every_workload_of_the_repository_can_be_loaded(file: Path) -> None:
    assert load_workload(file).name == file.stem


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steady.orders_per_s", 0),
        ("steady.orders_per_s", "fast"),
        ("steady.pay_share", 1.5),
        ("steady.speed", 3),
        ("backlog.events", -1),
        ("users", 0),
        ("rounds", 0),
        ("primary", []),
        ("primary.0", "p42_ms"),
        ("margin", 0),
        ("profile", "single-node"),
        ("payload_bytes", -1),
        ("payload_bytes", 16_385),
        ("payload_bytes", "1 KB"),
        ("backlog.updates_share", 1.1),
        ("backlog.key_skew", -1),
        ("consumers", 0),
        ("consumers", 5),
        ("warm_up.steady_s_max", -1),
        ("name", ""),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, field: str, value: object) -> None:
    document = yaml.safe_load(DEFAULT_WORKLOAD.read_text())
    *parts, last = field.split(".")
    place = document
    for part in parts:
        place = place[part]
    if last == "0":
        place.clear()
        place.append(value)
    else:
        place[last] = value
    with pytest.raises(WorkloadError, match=f"workload.yml: {field}: "):
        load_workload(write(tmp_path, document))


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="steady: Field required"):
        load_workload(write(tmp_path, {name: value for name, value in DOCUMENT.items() if name != "steady"}))


def test_layers_that_would_not_fit_into_memory_are_refused_with_how_many_would(tmp_path: Path) -> None:
    document = {**DOCUMENT, "payload_bytes": PAYLOAD_BYTES_MAX, "layers": {"events": 30_000}}
    assert load_workload(write(tmp_path, document)).payload_bytes == PAYLOAD_BYTES_MAX
    with pytest.raises(WorkloadError, match="ask for at most 32,768 events"):
        load_workload(write(tmp_path, {**document, "layers": {"events": 40_000}}))


def test_no_payload_is_larger_than_the_note_that_an_order_may_have() -> None:
    assert PAYLOAD_BYTES_MAX == NOTE_LENGTH_MAX


@pytest.mark.parametrize("size", [1, 2, 201, 1_000, PAYLOAD_BYTES_MAX])
def test_a_note_has_the_size_that_is_asked_for_and_half_of_it_does_not_compress(size: int) -> None:
    text = note(size, "seed")
    assert text is not None
    assert len(text.encode()) == size
    assert text == note(size, "seed")
    assert size < 10 or text != note(size, "another")
    packed = len(bytes(cramjam.lz4.compress_block(text.encode(), store_size=False)))
    assert packed >= size / 2
    assert size < PAYLOAD_BYTES_MAX or packed < 0.55 * size
    assert note(0, "seed") is None


def test_a_figure_is_named_once(tmp_path: Path) -> None:
    document = {**DOCUMENT, "primary": ["p50_ms", "p50_ms"]}
    with pytest.raises(WorkloadError, match="primary names a figure twice"):
        load_workload(write(tmp_path, document))


@pytest.mark.parametrize("file", sorted(DEFAULT_WORKLOAD.parent.glob("*.yml")), ids=lambda path: path.stem)
def test_the_rounds_of_our_own_workloads_are_enough_to_decide(file: Path) -> None:
    workload = load_workload(file)
    assert workload.rounds >= pairs_needed(len(workload.primary))


def test_only_the_last_rounds_have_a_backlog_where_not_all_have_one(workload: Workload) -> None:
    assert workload.backlog.rounds == 1
    numbers = range(1, workload.rounds + 1)
    assert [number for number in numbers if workload.has_backlog(number)] == [workload.rounds]
    whole = workload.model_copy(update={"backlog": workload.backlog.model_copy(update={"rounds": None})})
    assert all(whole.has_backlog(number) for number in numbers)


def test_the_quick_comparison_is_planned_for_less_than_four_minutes(workload: Workload) -> None:
    """Estimates of a machine of two cores; warm, so that nothing is installed."""
    assert sum(phase.estimate_s for phase in plan(workload)) < 240


def test_a_warm_up_is_not_over_before_its_time(tmp_path: Path) -> None:
    document = {**DOCUMENT, "warm_up": {"steady_s": 8, "steady_s_max": 7}}
    with pytest.raises(WorkloadError, match="steady_s_max must not be less than steady_s"):
        load_workload(write(tmp_path, document))
    assert WarmUp(steady_s=60).longest_s == 120


def test_an_order_cannot_be_both_paid_and_cancelled(tmp_path: Path) -> None:
    document = {**DOCUMENT, "steady": {**DOCUMENT["steady"], "pay_share": 0.7, "cancel_share": 0.7}}
    with pytest.raises(WorkloadError, match="steady: pay_share and cancel_share together"):
        load_workload(write(tmp_path, document))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--workload", "nowhere.yml"], "nowhere.yml"),
        (["--rounds", "many"], "'many'"),
        (["--rounds", "0"], "'0'"),
        (["--speed", "9"], "--speed"),
        (["--out", "compare"], "compare exists and is no report"),
    ],
)
def test_a_bad_option_is_one_sentence_and_exit_code_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DEFAULT_WORKLOAD.parents[2])
    try:
        code: object = main(arguments)
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("compare: ")
    assert captured.err.count("\n") == 1
    assert named in captured.err


@pytest.fixture
def workload() -> Workload:
    return load_workload(DEFAULT_WORKLOAD)


def test_the_schedule_is_the_same_for_the_same_seed_and_ordered_in_time(workload: Workload) -> None:
    first = plan_steady(workload.steady, workload.users, 10, "seed")
    assert first == plan_steady(workload.steady, workload.users, 10, "seed")
    assert first != plan_steady(workload.steady, workload.users, 10, "another")
    assert [operation.at_s for operation in first] == sorted(operation.at_s for operation in first)
    assert [operation.number for operation in first] == list(range(len(first)))


def test_the_schedule_has_the_rate_that_the_workload_asks_for(workload: Workload) -> None:
    operations = plan_steady(workload.steady, workload.users, 100, "seed")
    assert len(operations) == pytest.approx(100 * workload.steady.events_per_s, rel=0.05)


def test_people_come_independently_of_one_another_like_a_metronome_or_in_bursts(workload: Workload) -> None:
    """The gaps of a Poisson process vary as much as they are long; as many come each way."""
    spread: dict[str, float] = {}
    counts = set()
    for arrivals in ("poisson", "even", "bursts"):
        steady = workload.steady.model_copy(update={"arrivals": arrivals})
        times = [each.at_s for each in plan_steady(steady, workload.users, 100, "seed") if each.kind == "place"]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        spread[arrivals] = stdev(gaps) / mean(gaps)
        counts.add(len(times))
        assert 0 <= times[0] <= times[-1] <= 100
        assert arrivals != "bursts" or all(at_s % 1 < 0.1 for at_s in times)
    assert spread["poisson"] == pytest.approx(1, abs=0.1)
    assert spread["even"] == pytest.approx(0, abs=1e-6)
    assert counts == {100 * workload.steady.orders_per_s}


def test_a_follow_up_comes_after_its_order_and_belongs_to_it(workload: Workload) -> None:
    operations = plan_steady(workload.steady, workload.users, 10, "seed")
    closings = [operation for operation in operations if operation.kind in {"pay", "cancel"}]
    assert closings
    for closing in closings:
        assert closing.order is not None
        placing = operations[closing.order]
        assert placing.kind == "place"
        assert closing.at_s == pytest.approx(placing.at_s + workload.steady.follow_up_after_s)
    assert len({closing.order for closing in closings}) == len(closings), "an order is closed once"


def test_skewed_keys_have_a_hot_one(workload: Workload) -> None:
    operations = plan_steady(workload.steady, workload.users, 100, "seed")
    changes = [operation.user for operation in operations if operation.kind == "update"]
    assert changes.count(0) > 3 * len(changes) / workload.users


def test_each_broker_is_as_often_first_as_second_in_every_two_rounds() -> None:
    for seed in range(20):
        assert {turns(seed, 1)[0], turns(seed, 2)[0]} == set(BROKERS)
        assert set(turns(seed, 3)) == set(BROKERS)


def test_in_a_round_phases_alternate_and_every_broker_has_each(workload: Workload) -> None:
    phases = plan(workload)
    for number in range(1, workload.rounds + 1):
        steady = [phase.broker for phase in phases if phase.round_number == number and phase.kind == STEADY]
        backlog = [phase.broker for phase in phases if phase.round_number == number and phase.kind == BACKLOG]
        assert set(steady) == set(BROKERS)
        assert backlog == (steady[::-1] if workload.has_backlog(number) else [])
