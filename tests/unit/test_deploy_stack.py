"""What `up` and `down` do before and after anything runs: whose data is there."""

from pathlib import Path

import pytest

from deploy import stack
from deploy.errors import DeployError
from deploy.native import Ports
from deploy.native.site import write_state
from deploy.progress import Steps

QUIET = Steps(quiet=True)


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

    stack._require_data_of("rabbit", 1)
    stack._require_data_of("kafka", 3)


def test_down_keeps_the_data_unless_it_is_told_to_delete_it(root: Path) -> None:
    kept = data_of(root, "rabbit", "postgres")

    stack.down(QUIET)
    assert all(file.exists() for file in kept)

    stack.down(QUIET, volumes=True)
    assert not root.exists()
