"""A figure names its limiter, a broker is called faster only where it was a broker, and idle cost is apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compare.cost import costs
from compare.limiter import Limiter, limiters
from compare.run import RunResult
from compare.summary import summarise
from deploy.native import BrokerName
from experiment.figures import RateFigure
from experiment.usage import GENERATOR, OTHERS, Details
from tests.compare.test_judgement import ALIKE, APART, BUSY_S, IDLE_S, run_result

SECONDS = 10.0
"""How long each phase of the runs is."""


def spent(result: RunResult, broker: BrokerName, cpu_s: dict[str, float], details: Details) -> None:
    """Each phase of a side used this."""
    measured = result.sides[broker]
    measured.steady = [replace(each, cpu_s=cpu_s, details=details) for each in measured.steady]
    measured.backlogs = [
        replace(each, cpu_s=cpu_s, relay_cpu_s=cpu_s, details=details, relay_details=details)
        for each in measured.backlogs
    ]


CONSUMER = {"rabbit-notification-consumer": 9.0, "rabbit-order": 1.0, "kafka-notification-consumer": 20.0}


@pytest.mark.parametrize(
    ("cpu_s", "details", "expected"),
    [
        ({"rabbit": 8.0, "postgres": 2.0}, Details(), Limiter("broker CPU", 0.8)),
        ({"rabbit": 2.0, "postgres": 8.0}, Details(), Limiter("database", 0.8)),
        ({"rabbit": 2.0, GENERATOR: 8.0}, Details(), Limiter("generator", 0.8)),
        ({"rabbit": 2.0, "rabbit_services": 10.0}, Details(CONSUMER), Limiter("client CPU", 0.9)),
        ({"rabbit": 2.0, "rabbit_services": 4.0}, Details(stalled_s=6.0), Limiter("disk", 0.4)),
        ({"rabbit": 2.0, "rabbit_services": 4.0}, Details(stalled_s=1.0), Limiter("none", 0.4)),
        ({"rabbit": 8.0, OTHERS: 12.0}, Details(), Limiter("foreign load", 1.2)),
        ({"rabbit": 6.0, "rabbit_services": 6.0, "kafka": 6.0}, Details(), Limiter("broker CPU", 0.6)),
    ],
)
def test_who_had_no_more_to_give_is_named(
    tmp_path: Path, cpu_s: dict[str, float], details: Details, expected: Limiter
) -> None:
    result = run_result(tmp_path, APART)
    spent(result, "rabbit", cpu_s, details)
    found = limiters(result.sides["rabbit"], machine_cores=2)["effects_per_s"]
    assert found is not None
    assert found.name == expected.name
    assert found.cores == pytest.approx(expected.cores)


def test_a_drain_is_held_up_by_its_consumer_and_by_no_other_client(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    spent(
        result,
        "rabbit",
        {"rabbit_services": 10.0},
        Details({"rabbit-notification-consumer": 1.0, "rabbit-order": 9.0}),
    )
    found = limiters(result.sides["rabbit"], machine_cores=2)
    assert str(found["effects_per_s"]) == "none (0.10 cores)"
    assert str(found["relay_events_per_s"]) == "client CPU (0.90 cores)"


def test_of_several_consumers_the_busiest_holds_the_drain_up(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    consumers = {"rabbit-notification-consumer": 1.0, "rabbit-notification-consumer-2": 9.0}
    spent(result, "rabbit", {"rabbit_services": 10.0}, Details(consumers))
    assert str(limiters(result.sides["rabbit"], machine_cores=2)["effects_per_s"]) == "client CPU (0.90 cores)"


@pytest.mark.parametrize(
    ("slower", "faster", "through"),
    [
        ("broker", "client", False),
        ("client", "broker", True),
        ("client", "client", True),
        ("broker", "broker", False),
    ],
)
def test_a_broker_is_called_faster_only_where_the_slower_one_was_held_up_by_its_own(
    tmp_path: Path, slower: str, faster: str, *, through: bool
) -> None:
    result = run_result(tmp_path, APART)
    for broker, limit in (("rabbit", slower), ("kafka", faster)):
        used = {broker: 8.0} if limit == "broker" else {f"{broker}_services": 9.0}
        spent(result, broker, used, Details())  # type: ignore[arg-type]
    row = summarise(result, "make compare")["comparison"]["effects_per_s"]
    assert row["winner"] == "kafka"
    assert row["sentence"].endswith(", through these Python clients") is through
    names = {f"{limit} CPU" for limit in (slower, faster)}
    assert row["limiter"] == (names.pop() if len(names) == 1 else f"RabbitMQ: {slower} CPU; Kafka: {faster} CPU")


def test_what_a_part_burns_idle_is_measured_while_the_other_side_works(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    spent(result, "rabbit", {"rabbit": 2.0, "kafka": 1.0}, Details())
    spent(result, "kafka", {"rabbit": 0.5, "kafka": 3.0, "kafka_services": 4.0}, Details())
    found = costs(result.sides)
    assert found["kafka"]["broker_idle_cores"] == pytest.approx(1.0 / SECONDS)
    assert found["rabbit"]["broker_idle_cores"] == pytest.approx(0.5 / SECONDS)
    assert found["kafka"]["broker_steady_cpu_us_per_event"] == pytest.approx((3 - 1) / 1_000 * 1e6)
    assert found["kafka"]["broker_drain_cpu_us_per_event"] == pytest.approx((3 - 1) / 9_000 * 1e6, abs=0.1)
    assert found["kafka"]["services_relay_cpu_us_per_event"] == pytest.approx(4 / 10_000 * 1e6)
    assert found["kafka"]["broker_bytes_written_per_event"] is None, "the kernel did not say"
    assert found["kafka"]["broker_log_growth_bytes_per_event"] is None
    assert found["kafka"]["disk_flushes_steady_per_event"] is None


def test_bytes_flushes_and_the_highest_memory_are_those_of_the_backlogs(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    measured = result.sides["rabbit"]
    kept = Details(
        written_bytes={"rabbit": 5_000_000, "postgres": 20_000_000}, disk_flushes=400, stored_bytes=9_000_000
    )
    measured.backlogs = [
        replace(each, kept=kept, broker_memory_bytes=number << 20)
        for number, each in enumerate(measured.backlogs, start=100)
    ]
    measured.steady = [replace(each, details=Details(disk_flushes=2_500)) for each in measured.steady]
    found = costs(result.sides)["rabbit"]
    assert found["broker_bytes_written_per_event"] == 500
    assert found["postgres_bytes_written_per_event"] == 2_000
    assert found["broker_log_growth_bytes_per_event"] == 900
    assert found["disk_flushes_backlog_per_1000_events"] == 40
    assert found["disk_flushes_steady_per_event"] == 2.5
    assert found["broker_memory_mib"] == 107


@pytest.mark.parametrize(("broker_s", "through"), [(BUSY_S, False), (IDLE_S, True)])
def test_two_that_are_equivalent_through_the_same_clients_say_nothing_of_their_brokers(
    tmp_path: Path, broker_s: float, *, through: bool
) -> None:
    summary = summarise(run_result(tmp_path, ALIKE, broker_s), "make compare")
    assert {row["verdict"] for row in summary["comparison"].values()} == {"equivalent"}
    assert {said.endswith(", through these Python clients") for said in summary["differences"].values()} == {
        through
    }


def test_a_rate_that_took_a_fraction_of_a_second_is_said_to_be_no_figure(tmp_path: Path) -> None:
    result = run_result(tmp_path, APART)
    assert not any("order of magnitude" in note for note in summarise(result, "make compare")["notes"])
    measured = result.sides["kafka"]
    measured.backlogs[2] = replace(measured.backlogs[2], drain=RateFigure(900, 0.05, 18_000))
    found = [note for note in summarise(result, "make compare")["notes"] if "order of magnitude" in note]
    assert [note.partition(" was taken")[0] for note in found] == ["kafka: the rate of the drain"]
    assert "over as little as 0.05 s" in found[0]
