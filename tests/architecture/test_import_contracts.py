"""The contracts on imports (pyproject.toml) are kept, and each of them finds what breaks it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.source import REPOSITORY, tracked_files

CONTRACTS: dict[str, str] = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

PLANTED = [
    ("packages", "shared.publishing.planted", "services.order.domain"),
    ("packages", "shared.broker.planted", "deploy.topology"),
    ("packages", "shared.settings", "tests.conftest"),
    ("packages", "services.order.handlers", "deploy.topology"),
    ("packages", "services.user.store", "compare.run"),
    ("packages", "services.user.handlers", "bench.report"),
    ("packages", "services.notification.handlers", "faults.figures"),
    ("packages", "deploy.planted", "services.user.domain"),
    ("packages", "deploy.native.planted", "experiment.clock"),
    ("packages", "experiment.planted", "compare.judgement"),
    ("packages", "compare.planted", "faults.figures"),
    ("packages", "faults.planted", "bench.report"),
    ("packages", "bench.planted", "compare.judgement"),
    ("rooms", "shared.errors", "shared.broker.base"),
    ("rooms", "shared.broker.planted", "shared.outside.alerts"),
    ("rooms", "shared.telemetry.planted", "shared.publishing.uow"),
    ("rooms", "shared.publishing.planted", "shared.http.problems"),
    ("rooms", "shared.http.planted", "shared.consuming.inbox"),
    ("rooms", "shared.consuming.planted", "shared.process.process"),
    ("adapters", "shared.broker.rabbit.planted", "shared.broker.kafka.topics"),
    ("adapters", "shared.broker.kafka.planted", "shared.broker.rabbit.nodes"),
    ("adapters", "shared.broker.batches", "shared.broker.connect"),
    ("stages", "shared.consuming.batch", "shared.consuming.claiming"),
    ("stages", "shared.consuming.transaction", "shared.consuming.attempts"),
    ("stages", "shared.consuming.finishing", "shared.consuming.attempts"),
    ("stages", "shared.consuming.claiming", "shared.consuming.pipeline"),
    ("services", "services.order.store", "services.user.events"),
    ("services", "services.notification.events", "services.dead_letter.domain"),
    ("service-files", "services.order.domain", "services.order.store"),
    ("service-files", "services.dead_letter.store.planted", "services.dead_letter.handlers"),
    ("service-files", "services.user.events", "services.user.app"),
    ("service-http", "services.order.app", "services.order.http"),
    ("service-http", "shared.process.planted", "services.user.http"),
    ("experiment", "experiment.planted", "services.notification.store"),
    ("experiment", "compare.planted", "services.order.domain"),
    ("comparison", "compare.statistics.planted", "compare.judgement"),
    ("report", "compare.report.svg", "compare.run"),
    ("rabbit-client", "services.order.handlers", "aio_pika"),
    ("rabbit-client", "shared.consuming.planted", "aiormq"),
    ("rabbit-client", "shared.broker.kafka.planted", "pamqp"),
    ("kafka-client", "shared.broker.rabbit.planted", "aiokafka"),
    ("kafka-client", "services.user.app", "aiokafka"),
    ("faststream", "shared.process.planted", "faststream"),
    ("faststream", "services.order.app", "faststream"),
    ("fastapi", "shared.process.planted", "fastapi"),
    ("fastapi", "services.order.handlers", "fastapi"),
    ("fastapi", "deploy.planted", "fastapi"),
    ("opentelemetry", "shared.publishing.planted", "opentelemetry"),
    ("opentelemetry", "services.order.handlers", "opentelemetry"),
]
"""Contract, a module (one that is there, or a new one), and what is imported there against the contract."""


def lint(place: Path) -> tuple[int, str]:
    """Exit code and output of `lint-imports` over the tree in a directory."""
    command: list[str | Path] = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(
        command,
        cwd=place,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "500"},  # wide, so that no name is broken
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def copy_tree(place: Path) -> None:
    """The Python files and the contracts."""
    for path in tracked_files():
        if path.suffix == ".py" or path.name == "pyproject.toml":
            target = place / path.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def by_contract(output: str) -> dict[str, str]:
    """What was found against each broken contract: it stands below the contract's underlined name."""
    headings = "|".join(re.escape(name) for name in CONTRACTS.values())
    _, *parts = re.split(rf"\n({headings})\n-+\n", output)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def found_in_planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the linter finds in a copy of the tree with all violations planted at once."""
    place = tmp_path_factory.mktemp("planted")
    copy_tree(place)
    for _, importer, imported in PLANTED:
        path = place / f"{importer.replace('.', '/')}.py"
        assert path.parent.is_dir(), importer
        with path.open("a") as file:
            file.write(f"\nimport {imported}\n")
    code, output = lint(place)
    assert code == 1, output
    return by_contract(output)


def test_the_tree_keeps_its_contracts() -> None:
    code, output = lint(REPOSITORY)
    assert code == 0, output


@pytest.mark.parametrize(("contract", "importer", "imported"), PLANTED)
def test_a_planted_import_breaks_its_contract(
    found_in_planted: dict[str, str], contract: str, importer: str, imported: str
) -> None:
    assert f"{importer} -> {imported} " in found_in_planted[CONTRACTS[contract]]


def test_a_room_that_has_no_place_among_the_others_is_refused(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    (tmp_path / "shared" / "attic.py").touch()
    code, output = lint(tmp_path)
    assert code == 1
    assert "shared.attic" in output


def test_every_contract_has_a_planted_violation() -> None:
    assert {contract for contract, _, _ in PLANTED} == set(CONTRACTS)
