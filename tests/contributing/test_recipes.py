"""What CONTRIBUTING.md tells people to do works when it is done as it says, in a copy of the repository."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from deploy.paths import REPOSITORY
from tests.contributing.recipes import Scratch

pytestmark = pytest.mark.timeout(600)  # each starts Python several times, on a machine that may be busy

HERE = Path(__file__).parent
HELPER = "tests.contributing.in_the_copy"
PAID = REPOSITORY / "tests" / "unit" / "golden" / "order.paid.1.json"


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "tandem")


def run_tests(scratch: Scratch, *arguments: str) -> str:
    """Some of the tests, in the copy and in one process."""
    return scratch.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)


def assert_in_good_style(scratch: Scratch) -> None:
    """What `make check` says of it, without types."""
    scratch.python("-m", "ruff", "check", "-q", "--no-cache", ".")
    scratch.python("-m", "ruff", "format", "-q", "--no-cache", "--check", ".")
    scratch.python("-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache', '--no-logo'])")


def test_a_new_event_type_is_published_and_read(scratch: Scratch) -> None:
    write_sample, test = scratch.follow("A new event type")
    samples = {path.name for path in (scratch.root / "tests/unit/golden").iterdir()}

    assert scratch.python(*shlex.split(write_sample)[1:]) == "wrote order.invoiced.1.json\n"
    assert {path.name for path in (scratch.root / "tests/unit/golden").iterdir()} - samples == {
        "order.invoiced.1.json"
    }
    [_, _, arguments] = shlex.split(test)
    passed = run_tests(scratch, "-rp", arguments.removeprefix("ARGS="))
    for claim in (
        "reads_the_golden_sample[order.invoiced.1]",
        "reads_what_is_published_today[order-order.invoiced]",
    ):
        assert f"PASSED tests/unit/test_event_contracts.py::test_every_consumer_{claim}" in passed
    assert_in_good_style(scratch)


def test_a_new_service_is_one_row_and_its_folder(scratch: Scratch) -> None:
    render, check, test = scratch.follow("A new service")
    assert (check, test) == ("make check", "make test")  # of which this test runs what concerns a new service

    written = scratch.make(render)
    assert {line.removeprefix("written: ") for line in written.splitlines()} == {
        "deploy/compose/compose.yml",
        "deploy/compose/create-databases.sh",
    }
    assert_in_good_style(scratch)
    run_tests(
        scratch,
        *(f"tests/architecture/test_{part}.py" for part in ("agreement", "rendered", "compose_files")),
        "tests/unit/test_event_contracts.py",
    )


CHECKS = (
    "check_what_is_confirmed_is_delivered_once",
    "check_bytes_and_headers_arrive_as_sent",
    "check_one_key_keeps_its_order",
    "check_callers_publish_at_the_same_time",
    "check_messages_wait_for_a_declared_subscriber",
)


def with_adapter(scratch: Scratch) -> Scratch:
    """The recipe followed, with stand-ins for the two files that are work: the adapter, and its server."""
    adapter = scratch.root / "shared/broker/nats"
    adapter.mkdir()
    (adapter / "__init__.py").touch()
    shutil.copy(HERE / "nats_adapter.py", adapter / "adapter.py")
    shutil.copy(HERE / "nats_server.py", scratch.root / "deploy/native/servers/nats.py")
    docs, suite = scratch.follow("A new broker adapter")
    scratch.make(docs)
    assert "TANDEM_NATS_URL" in (scratch.root / "docs/settings.md").read_text()
    assert suite == 'make test ARGS="tests/conformance -k nats"'  # of which the tests below run a few checks
    return scratch


def test_a_new_broker_adapter_is_known_to_all_and_is_held_to_the_suite(scratch: Scratch, tmp_path: Path) -> None:
    with_adapter(scratch)

    collected = run_tests(scratch, "--collect-only", "tests/conformance/test_conformance.py", "-k", "nats")
    assert "[nats-what_is_confirmed_is_delivered_once]" in collected
    held = scratch.python("-m", HELPER, "conformance", str(tmp_path / "nobody"), "nats", *CHECKS)
    assert set(json.loads(held)) == set(CHECKS)
    assert_in_good_style(scratch)


def test_a_new_broker_adapter_that_breaks_its_obligation_is_caught(scratch: Scratch, tmp_path: Path) -> None:
    adapter = with_adapter(scratch).root / "shared/broker/nats/adapter.py"
    sound = adapter.read_text()
    assert sound.count("queue.messages.append(message)") == 1
    adapter.write_text(sound.replace("queue.messages.append(message)", "queue.messages.appendleft(message)"))

    with pytest.raises(AssertionError, match="out of order"):
        scratch.python("-m", HELPER, "conformance", str(tmp_path / "nobody"), "nats", *CHECKS)


def test_a_new_fault_is_listed(scratch: Scratch) -> None:
    alone, whole = scratch.follow("A new fault")
    assert whole == "make faults"
    [_, _, arguments] = shlex.split(alone)
    [_, name] = arguments.removeprefix("ARGS=").split()

    assert name in scratch.python("-m", "faults", "--help")
    assert_in_good_style(scratch)
