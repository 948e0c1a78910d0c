"""What `up` and `down` do before and after anything runs: whose data is there, and who else is at work."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.native import Ports
from deploy.native.site import write_state
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.stack import choice as stack
from deploy.stack.native import NativeStack

QUIET = Steps(quiet=True)
HOLD_AND_TELL = """
import sys
from pathlib import Path
from deploy.progress import Steps
from deploy.stack.lock import alone
with alone(Path(sys.argv[1]), "up rabbit", Steps(), wait_max_s=10):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack of nobody's, natively."""
    monkeypatch.setenv("RUNTIME", "native")
    monkeypatch.setattr(stack, "STACK_ROOT", tmp_path / "stack")
    return tmp_path / "stack"


def data_of(root: Path, *names: str) -> list[Path]:
    """What was there when somebody said `make down`."""
    root.mkdir(exist_ok=True)
    state = {"ports": Ports.default().as_dict(), "password": "secret", "servers": ["rabbit"], "sets": {}}
    write_state(root, state)
    kept = [root / "data" / name / "events" for name in names]
    for file in kept:
        file.parent.mkdir(parents=True)
        file.touch()
    return kept


@contextmanager
def another_up(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Somebody else's `up`, under way until it is killed."""
    command = [sys.executable, "-c", HOLD_AND_TELL, str(root.with_name("stack.lock"))]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as held:
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "held\n"
            yield held
        finally:
            held.kill()


@pytest.mark.parametrize(
    ("names", "nodes", "wrote"),
    [(["rabbit"], 3, 1), (["rabbit", "rabbit-2", "rabbit-3"], 1, 3)],
    ids=["one-to-three", "three-to-one"],
)
def test_another_number_of_nodes_is_refused_in_one_sentence_and_nothing_is_deleted(
    root: Path, names: list[str], nodes: int, wrote: int
) -> None:
    kept = data_of(root, *names, "postgres")

    with pytest.raises(DeployError, match=rf"^[^\n]*RabbitMQ is of {wrote} node[^\n]*NODES={wrote}[^\n]*$"):
        stack.up("rabbit", QUIET, nodes)

    assert all(file.exists() for file in kept)


def test_the_data_of_as_many_nodes_or_of_the_other_broker_is_in_nobodys_way(root: Path) -> None:
    data_of(root, "rabbit", "kafka", "kafka-2", "kafka-3")

    native = NativeStack(root, QUIET)
    native._require_data_of("rabbit", 1)
    native._require_data_of("kafka", 3)


def test_down_keeps_the_data_unless_it_is_told_to_delete_it(root: Path) -> None:
    kept = data_of(root, "rabbit", "postgres")

    stack.down(QUIET)
    assert all(file.exists() for file in kept)

    stack.down(QUIET, volumes=True)
    assert not root.exists()


def test_a_second_up_is_refused_and_told_who_is_at_work(root: Path) -> None:
    with (
        another_up(root) as first,
        pytest.raises(DeployError, match=rf"^`up rabbit` \(process {first.pid}\) is under way[^\n]*$"),
    ):
        stack.up("rabbit", QUIET)


def test_down_waits_for_an_up_only_so_long_and_says_how_to_end_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "_DOWN_WAIT_MAX_S", 0.2)

    with another_up(root) as first, pytest.raises(DeployError, match=f"`kill {first.pid}`"):
        stack.down(QUIET)


def test_down_goes_on_when_the_up_is_killed_however_that_was(root: Path) -> None:
    with another_up(root) as first, ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(stack.down, QUIET)
        first.kill()
        assert waiting.result(timeout=20) is False


def test_which_runtime_is_forced_is_asked_in_one_place() -> None:
    askers = [
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "deploy").rglob("*.py")
        if '"RUNTIME"' in path.read_text()
    ]
    assert askers == ["deploy/stack/choice.py"]


def test_a_runtime_that_there_is_not_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME", "podman")

    with pytest.raises(DeployError, match=r"^RUNTIME must be docker or native, not 'podman'$"):
        stack.up("rabbit", QUIET)
