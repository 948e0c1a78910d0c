"""What is read of a Docker engine's answers, which were recorded from one, and asked over a socket of its kind."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from deploy.progress import Steps
from experiment.containers import Contained, ContainerRuntime, Engine, Limits
from experiment.containers.engine import EngineError, account_of
from experiment.usage import forget_peak, take_usage

ANSWERS = Path(__file__).with_name("engine_answers")
LOGS = b"\x01\0\0\0\0\0\0\x09starting\n\x01\0\0\0\0\0\0\x07ending\n\x02\0\0\0\0\0\0\x11no configuration\n"
"""As recorded, too: what was said on standard error comes last."""
MIB = 2**20
CONTAINED = Contained(
    names={"postgres": "one-postgres", "kafka": "one-kafka"},
    block=25_000,
    password="hush-hush",
    durability="fsync",
    versions={"postgres": "17.11", "kafka": "4.3.0"},
    settings={"postgres": {"fsync": "on"}, "kafka": {"log.flush.interval.messages": "1"}},
    limits={"kafka": Limits(image="apache/kafka:4.3.0", cpus=2.0, memory_mib=2_048)},
    engine="Docker",
    kept_logs="/somewhere",
)


def answer(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ANSWERS / f"{name}.json").read_text())
    return found


def with_version_2(told: dict[str, Any], written: list[int]) -> dict[str, Any]:
    """The same as an engine tells it with version 2 of control groups: other names, and reads and writes alone."""
    rows = [{"major": 254, "minor": number, "op": "read", "value": 7} for number in range(len(written))]
    rows += [
        {"major": 254, "minor": number, "op": "write", "value": bytes_} for number, bytes_ in enumerate(written)
    ]
    memory = {"usage": told["memory_stats"]["usage"], "stats": {"anon": 5, "file": 6}, "limit": 7}
    return {**told, "memory_stats": memory, "blkio_stats": {"io_service_bytes_recursive": rows or None}}


class Server(socketserver.ThreadingUnixStreamServer):
    """Who has an answer may be gone before the rest of it is written."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


class Answering:
    """An engine's socket: it gives the answers that are put there, by path."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = outer.answers.get(self.path.partition("?")[0])
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def address_string(self) -> str:
                return "a socket"

            def log_message(self, *_: object) -> None:
                pass

        self._server = Server(str(place), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    found = Answering(tmp_path / "engine.sock")
    yield found
    found.stop()


@pytest.fixture
def engine(answering: Answering) -> Iterator[Engine]:
    found = Engine(answering.place)
    yield found
    found.close()


def put(answering: Answering, container: str, told: dict[str, Any]) -> None:
    answering.answers[f"/containers/{container}/stats"] = json.dumps(told).encode()


def test_cpu_and_memory_are_those_of_the_container_with_the_page_cache(
    answering: Answering, engine: Engine
) -> None:
    told = answer("stats-cgroup-v1")
    put(answering, "one-kafka", told)
    account = engine.account("one-kafka")
    assert account.cpu_s == pytest.approx(told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9)
    memory = told["memory_stats"]
    assert account.memory_bytes == memory["usage"] >= memory["stats"]["cache"] > MIB
    assert answering.asked == ["/containers/one-kafka/stats?stream=false&one-shot=true"]


def test_what_is_written_is_measured_where_control_groups_tell_whose_it_is() -> None:
    told = answer("stats-cgroup-v1")
    assert account_of(told).written_bytes is None, "not 0"
    assert account_of(with_version_2(told, [1_000, 24])).written_bytes == 1_024
    assert account_of(with_version_2(told, [])).written_bytes is None, "no device is listed"


def test_an_answer_without_what_was_asked_for_is_an_error_in_a_sentence(
    answering: Answering, engine: Engine
) -> None:
    put(answering, "one-kafka", {"message": "page not found"})
    with pytest.raises(EngineError, match="does not tell what one-kafka uses"):
        engine.account("one-kafka")
    with pytest.raises(EngineError, match=r"does not answer on .*engine.sock"):
        engine.account("nobody")


def test_an_engine_that_is_not_there_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    nobody = Engine(tmp_path / "nothing.sock")
    with pytest.raises(EngineError, match=r"does not answer on .*nothing.sock"):
        nobody.account("one-kafka")
    nobody.close()


def test_a_container_that_has_ended_is_told_with_its_last_lines(answering: Answering, engine: Engine) -> None:
    state = answer("inspect-ended")
    answering.answers["/containers/one-kafka/json"] = json.dumps(
        {"State": {**state["State"], "Running": True}}
    ).encode()
    assert engine.ended("one-kafka") is None
    answering.answers["/containers/one-kafka/json"] = json.dumps(state).encode()
    answering.answers["/containers/one-kafka/logs"] = LOGS
    assert engine.ended("one-kafka") == "it ended with exit code 3:\nstarting\nending\nno configuration"


def test_the_memory_of_a_phase_is_the_highest_that_was_seen_in_it(
    tmp_path: Path, answering: Answering, engine: Engine
) -> None:
    runtime = ContainerRuntime(tmp_path / "instance", CONTAINED, engine, Steps(quiet=True))
    told = answer("stats-cgroup-v1")

    def seen(mib: int) -> int | None:
        for name in CONTAINED.names.values():
            put(answering, name, {**told, "memory_stats": {**told["memory_stats"], "usage": mib * MIB}})
        return runtime.accounts()["kafka"].memory_bytes

    assert [seen(mib) for mib in (100, 300, 200)] == [100 * MIB, 300 * MIB, 300 * MIB]
    forget_peak(runtime, "kafka")
    assert [seen(mib) for mib in (150, 140)] == [150 * MIB, 150 * MIB]


def test_usage_of_an_instance_in_containers_is_its_containers(
    tmp_path: Path, answering: Answering, engine: Engine
) -> None:
    runtime = ContainerRuntime(tmp_path / "instance", CONTAINED, engine, Steps(quiet=True))
    told = answer("stats-cgroup-v1")
    put(answering, "one-postgres", told)
    put(answering, "one-kafka", with_version_2(told, [512]))
    asked_s = time.monotonic()
    usage = take_usage(runtime, "kafka", asked_s)
    assert usage.at_s > asked_s, "it is that of the answer, for which an engine takes its time"
    assert usage.cpu_s["kafka"] == usage.cpu_s["postgres"] == account_of(told).cpu_s
    assert usage.broker_memory_bytes == told["memory_stats"]["usage"]
    assert usage.details.written_bytes == {"kafka": 512}, "that of PostgreSQL is not known, and not 0"
    facts = runtime.facts()
    assert facts["not_measured"] == [
        "postgres_bytes_written_per_event",
        "broker_log_growth_bytes_per_event",
        "disk_flushes_steady_per_event",
        "disk_flushes_backlog_per_1000_events",
    ]
    assert facts["containers"]["kafka"]["memory_mib"] == 2_048
    assert "hush-hush" not in str(facts) + repr(CONTAINED)


def test_it_has_the_addresses_and_the_password_of_the_servers_that_are_there(
    tmp_path: Path, engine: Engine
) -> None:
    runtime = ContainerRuntime(tmp_path / "instance", CONTAINED, engine, Steps(quiet=True))
    assert runtime.dsn("order") == "postgresql://tandem:hush-hush@127.0.0.1:25000/order"
    assert runtime.versions() == CONTAINED.versions
    assert runtime.servers == (), "none of them is its own to start or to end"
