"""What follows from deploy/topology.py stands in other files as it follows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.paths import REPOSITORY
from deploy.render import FILES, render, services_table


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that are derived from the topology, as they are committed."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def test_rendering_again_changes_nothing(copy: Path) -> None:
    assert render(copy) == [], "somebody changed deploy/topology.py and did not run `make render`"
    assert all((copy / name).read_bytes() == (REPOSITORY / name).read_bytes() for name in FILES)


@pytest.mark.parametrize(
    ("name", "derived"),
    [
        ("deploy/compose/compose.yml", "  TANDEM_HTTP_PORT: 8001\n"),
        ("deploy/compose/compose.yml", "    command: [python, -m, shared.migrate, user]\n"),
        ("deploy/compose/compose.yml", "    depends_on: *order-ready\n"),
        ("deploy/compose/create-databases.sh", " notification"),
        ("README.md", "http://127.0.0.1:8001/docs"),
    ],
)
def test_what_is_derived_comes_back_and_what_is_written_by_hand_stays(copy: Path, name: str, derived: str) -> None:
    committed = (copy / name).read_text()
    assert committed.count(derived) == 1
    (copy / name).write_text(committed.replace(derived, "") + "# by hand\n")

    assert render(copy) == [copy / name]

    assert (copy / name).read_text() == committed + "# by hand\n"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_has_lost_the_place_of_what_is_derived_is_named(copy: Path, name: str) -> None:
    text = (copy / name).read_text()
    (copy / name).write_text(text.replace("# <<<", "").replace("| service | port |", "| service |"))

    with pytest.raises(DeployError, match=f"lost its place, or has two: {name}"):
        render(copy)


def test_the_readme_has_the_table_of_services() -> None:
    assert (REPOSITORY / "README.md").read_text().count(services_table()) == 1
