"""`RUNTIME=docker make compare`: what it asks of the command `docker`, what it refuses, and what it leaves.

A stand-in for that command notes what it was asked and gives the harness's report; no engine runs here.
"""

from __future__ import annotations

import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compare import command_line
from compare.containers import inside
from compare.containers.errand import Errand
from compare.document import Summary, read_summary
from compare.report import words, write_report
from compare.run import RunResult
from compare.summary import summarise
from deploy.progress import Steps
from deploy.stack.lock import alone
from experiment.signals import raise_on_first_signal
from tests.compare.test_judgement import APART, run_result

DOCKER = """\
#!/bin/sh
here=${0%/*}
echo "$*" >> "$here/asked"
case "$*" in
info*) /bin/cat "$here/info" || exit 1 ;;
context*) echo unix:///run/somewhere/docker.sock ;;
ps*) /bin/cat "$here/running" 2>/dev/null; : > "$here/running" ;;
"image inspect kafka"*|"image inspect apache/kafka"*) exit 1 ;;
build*) echo sha256:made ;;
create*--name*harness*) echo one > "$here/running" ;;
start*) if [ -e "$here/no-start" ]; then echo 'no space left on device' >&2; exit 1; fi ;;
"logs --follow"*)
    echo 'round 1' >&2
    if [ -e "$here/signal-while-shown" ]; then
        /bin/kill -s INT "$PPID"; : > "$here/signalled"; /bin/sleep 0.3
    fi ;;
wait*)
    if [ -e "$here/signal-at-the-end" ]; then
        /bin/rm "$here/signal-at-the-end"; /bin/kill -s INT "$PPID"; /bin/sleep 0.3
    fi
    /bin/cat "$here/code" ;;
"cp - "*harness*) /bin/cat > "$here/errand.tar" ;;
"cp - "*) /bin/cat > /dev/null ;;
*/tandem-report/.*)
    if [ ! -d "$here/report" ]; then echo 'Could not find the file /tandem-report/. in container x' >&2; exit 1; fi
    /bin/cp "$here"/report/* "${*##* }" ;;
*/compare-failed-logs/.*) echo 'no service' > "${*##* }/kafka-order.log" ;;
logs*) echo 'out of memory' ;;
esac
"""
REPORT_FILES = {"summary.json", "report.html", "report.md", "ledger.jsonl.gz", "latencies.hlog"}


class Engine:
    """The stand-in, what it was asked so far, and how the harness will end."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        (place / "docker").write_text(DOCKER)
        (place / "docker").chmod(0o755)
        (place / "info").write_text('{"NCPU": 4, "ServerVersion": "28.2.2", "OperatingSystem": "Debian"}')
        self.ends(with_code=0)

    def ends(self, *, with_code: int, outcome: RunResult | None = None) -> None:
        (self.place / "code").write_text(f"{with_code}\n")
        if outcome is not None:
            write_report(self.place / "report", outcome, summarise(outcome, "RUNTIME=docker make compare"))

    def asked(self) -> list[str]:
        place = self.place / "asked"
        return place.read_text().splitlines() if place.exists() else []

    def errand(self) -> Errand:
        with tarfile.open(self.place / "errand.tar") as archive:
            [entry] = archive.getmembers()
            content = archive.extractfile(entry)
            assert content is not None
            return Errand.model_validate_json(content.read())


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(found.place))
    monkeypatch.setenv("RUNTIME", "docker")
    monkeypatch.setattr(command_line, "_RUN_ROOT", tmp_path / "run")
    return found


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """The command takes them for its process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def outcome(tmp_path: Path) -> RunResult:
    return run_result(tmp_path / "measured", APART)


def compare(tmp_path: Path, *words_: str) -> int:
    return command_line.main(["--out", str(tmp_path / "out"), *words_])


@pytest.mark.parametrize(
    ("environment", "words_", "sentence"),
    [
        ({"RUNTIME": "podman"}, [], "RUNTIME must be docker or native, not 'podman'"),
        ({"TANDEM_KAFKA_SERVERS": "k1:9092"}, [], "RUNTIME=docker starts both brokers: on brokers of one's own"),
        ({}, ["--profile", "replicated"], "the profile replicated is of several nodes"),
        ({"NO_ENGINE": "1"}, [], "RUNTIME=docker was asked for, but no Docker engine answers"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_before_anything_starts(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    words_: list[str],
    sentence: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "NO_ENGINE" in environment:
        (engine.place / "info").unlink()
    assert compare(tmp_path, *words_) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"compare: {sentence}")
    assert not any(line.startswith(("create", "build", "rm")) for line in engine.asked())


def test_without_a_docker_command_it_is_refused(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (engine.place / "docker").unlink()
    assert compare(tmp_path) == 2
    assert capsys.readouterr().err == "compare: RUNTIME=docker was asked for, but no Docker engine answers\n"


def test_the_report_of_a_run_comes_to_its_place_and_no_container_stays(
    engine: Engine, tmp_path: Path, outcome: RunResult, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.ends(with_code=0, outcome=outcome)
    (engine.place / "running").write_text("left-by-a-killed-run\n")
    assert compare(tmp_path) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == REPORT_FILES
    assert f"The page: {tmp_path / 'out' / 'report.html'}" in capsys.readouterr().out
    asked = engine.asked()
    at = [number for number, line in enumerate(asked) if line.startswith("rm --force --volumes")]
    assert [asked[number].split()[-1] for number in at] == ["left-by-a-killed-run", "one"]
    created = [number for number, line in enumerate(asked) if line.startswith("create")]
    assert at[0] < created[0] < created[-1] < at[1]
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["compare-docker.lock"]


def test_the_servers_share_a_network_that_leads_nowhere_and_only_the_harness_may_ask_the_engine(
    engine: Engine, tmp_path: Path, outcome: RunResult
) -> None:
    engine.ends(with_code=0, outcome=outcome)
    compare(tmp_path)
    harness, *servers = [line.split() for line in engine.asked() if line.startswith("create")]
    name = harness[harness.index("--name") + 1]
    assert name.startswith("tandem-compare-")
    assert harness[harness.index("--network") + 1] == "none"
    assert "/run/somewhere/docker.sock:/var/run/docker.sock" in harness
    assert harness[-4:] == ["sha256:made", "python", "-m", "compare.containers.inside"]
    assert {each[each.index("--network") + 1] for each in servers} == {f"container:{name}"}
    assert len(servers) == 4
    for each in (harness, *servers):
        assert not {"--publish", "-p", "--privileged"} & {*each}
        mounts = [each[at + 1] for at, word in enumerate(each) if word == "--volume"]
        assert sum(":" in mount for mount in mounts) == (each is harness), "no directory of this machine"
    started = [line for line in engine.asked() if line.startswith("start")]
    assert started[0] == f"start {name}", "whose network it is"


def test_only_what_is_not_there_is_pulled(engine: Engine, tmp_path: Path, outcome: RunResult) -> None:
    engine.ends(with_code=0, outcome=outcome)
    compare(tmp_path)
    assert [line for line in engine.asked() if line.startswith("pull")] == ["pull --quiet apache/kafka:4.3.0"]


def test_the_harness_is_told_the_workload_and_how_it_is_done_again(
    engine: Engine, tmp_path: Path, outcome: RunResult
) -> None:
    engine.ends(with_code=0, outcome=outcome)
    compare(tmp_path, "--rounds", "7", "--profile", "single-pagecache")
    errand = engine.errand()
    assert (errand.workload.rounds, errand.contained.durability) == (7, "pagecache")
    assert errand.command == (
        f"RUNTIME=docker make compare ROUNDS=7 PROFILE=single-pagecache ARGS=--out={tmp_path / 'out'}"
    )
    limits = errand.contained.limits
    assert limits["rabbit"].cpus == limits["kafka"].cpus == 2
    assert limits["rabbit"].memory_mib == limits["kafka"].memory_mib == 2_048


@pytest.mark.parametrize(("ended_with", "code"), [(0, 0), (1, 1), (130, 130), (137, 1)])
def test_the_exit_code_is_the_harness_s_unless_it_was_killed(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], ended_with: int, code: int
) -> None:
    engine.ends(with_code=ended_with)
    assert compare(tmp_path) == code
    assert ("ended from outside, with exit code 137" in capsys.readouterr().err) == (ended_with == 137)
    assert not (tmp_path / "out").exists()
    kept = tmp_path / "run" / "compare-failed-logs"
    assert kept.exists() == (ended_with != 0)
    if kept.exists():
        assert {"kafka-order.log", "kafka.log", "postgres.log"} <= {file.name for file in kept.iterdir()}


@pytest.fixture
def slowly_known(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a process hears of it only when that has run for a while, as on a busy machine."""

    class Slowly(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            deadline = time.monotonic() + 20
            while "--follow" in command and not (engine.place / "signalled").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)

    monkeypatch.setattr(subprocess, "Popen", Slowly)


@pytest.mark.parametrize(
    ("when", "machine"),
    [("while-shown", None), ("while-shown", "slowly_known"), ("at-the-end", None)],
    ids=["shown", "shown, and nobody knows it yet", "ended"],
)
def test_a_signal_is_passed_on_and_what_was_measured_is_kept_beside_an_earlier_report(
    engine: Engine,
    tmp_path: Path,
    outcome: RunResult,
    request: pytest.FixtureRequest,
    when: str,
    machine: str | None,
) -> None:
    if machine:
        request.getfixturevalue(machine)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("an earlier one")
    engine.ends(with_code=130, outcome=replace(outcome, cut_short="interrupted by SIGINT"))
    (engine.place / f"signal-{when}").touch()
    raise_on_first_signal()
    assert compare(tmp_path) == 130
    [killed] = [line for line in engine.asked() if line.startswith("kill")]
    assert killed.startswith("kill --signal SIGINT tandem-compare-")
    assert (tmp_path / "out" / "summary.json").read_text() == "an earlier one"
    assert read_summary(tmp_path / "out-partial").cut_short == "interrupted by SIGINT"
    assert engine.asked()[-1] == "rm --force --volumes one"


def test_what_cannot_be_started_is_said_and_what_was_is_removed(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (engine.place / "no-start").touch()
    assert compare(tmp_path) == 1
    assert capsys.readouterr().err.endswith("compare: docker start failed:\n    no space left on device\n")
    assert engine.asked()[-1] == "rm --force --volumes one"


def test_a_second_run_of_a_checkout_would_remove_the_first_one_s_containers_and_is_refused(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compare.containers.outside._LOCK_WAIT_MAX_S", 0.0)
    with alone(tmp_path / "run" / "compare-docker.lock", "compare", Steps(quiet=True), wait_max_s=0):
        assert compare(tmp_path) == 1
    assert "is under way in this checkout" in capsys.readouterr().err
    assert not any(line.startswith(("create", "rm")) for line in engine.asked())


def test_what_changed_since_another_report_is_asked_of_this_one_too(
    engine: Engine, tmp_path: Path, outcome: RunResult
) -> None:
    write_report(tmp_path / "base", outcome, summarise(outcome, "make compare"))
    engine.ends(with_code=0, outcome=outcome)
    assert compare(tmp_path, "--base", str(tmp_path / "base")) == 0
    found = read_summary(tmp_path / "out").changes
    assert found is not None
    assert found.base == str(tmp_path / "base")


def test_the_harness_leaves_a_report_with_the_revision_that_it_was_told(
    engine: Engine, tmp_path: Path, outcome: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.ends(with_code=0, outcome=outcome)
    compare(tmp_path)
    (tmp_path / "errand.json").write_text(
        engine.errand().model_copy(update={"revision": "1a2b3c"}).model_dump_json()
    )
    monkeypatch.setattr(inside, "ERRAND", tmp_path / "errand.json")
    monkeypatch.setattr(inside, "REPORT", tmp_path / "inside")
    given: list[object] = []

    def run(*asked: object, **more: object) -> RunResult:
        given.extend([*asked, *more.values()])
        return outcome

    monkeypatch.setattr(inside, "run", run)
    assert inside.main() == 0
    assert read_summary(tmp_path / "inside").versions["tandem"] == "1a2b3c"
    assert given[0] == engine.errand().workload
    assert given[-1] == engine.errand().contained


def test_what_is_not_measured_in_containers_is_said_to_be_and_never_0(outcome: RunResult) -> None:
    outcome.settings |= {
        "containers": {"engine": "Docker 28 on Linux", "rabbit": {"image": "r", "cpus": 2.0, "memory_mib": 2_048}},
        "not_measured": ["broker_bytes_written_per_event", "postgres_bytes_written_per_event"],
    }
    document = summarise(outcome, "make compare")
    summary = Summary.model_validate(document)
    for broker in summary.brokers:
        for part in ("broker", "postgres"):
            assert words.cost(summary, broker, f"{part}_bytes_written_per_event") == words.NOT_MEASURED
        assert words.cost(summary, broker, "broker_memory_mib") == "256"
    assert "each broker with at most 2 CPUs and 2,048 MiB" in str(document["notes"])
    assert "what the servers wrote to the disk is not measured" in str(document["notes"])
