"""What is made of Kafka once per machine: a storage that nodes get copies of; classes, which may be missing."""

from pathlib import Path

import pytest

from deploy.errors import InstallError
from deploy.native.install.kafka import copy_storage, mapped_classes
from deploy.progress import Steps

LABELS = (
    "#\n#Sat Nov 28 14:03:44 UTC 2026\nnode.id=1\ndirectory.id=hw2jRaIxEUG7rWqFQxZ0fg\nversion=1\ncluster.id=AbC\n"
)


@pytest.fixture
def formatted(tmp_path: Path) -> Path:
    place = tmp_path / "formatted"
    place.mkdir()
    (place / "meta.properties").write_text(LABELS)
    (place / "bootstrap.checkpoint").write_bytes(b"\x00features")
    return place


def labels_of(storage: Path) -> dict[str, str]:
    lines = (storage / "meta.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_copied_storage_carries_the_labels_of_its_node_and_cluster(formatted: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    copy_storage(formatted, first, node=1, cluster="one")
    copy_storage(formatted, second, node=2, cluster="one")

    assert labels_of(first)["directory.id"] != labels_of(second)["directory.id"]
    for node, storage in enumerate((first, second), start=1):
        assert labels_of(storage).items() >= {"version": "1", "node.id": str(node), "cluster.id": "one"}.items()
        assert (storage / "bootstrap.checkpoint").read_bytes() == b"\x00features"


@pytest.mark.parametrize("other", [LABELS.replace("version=1", "version=2"), LABELS + "new.id=1\n", ""])
def test_a_storage_that_is_labelled_otherwise_is_refused(formatted: Path, tmp_path: Path, other: str) -> None:
    (formatted / "meta.properties").write_text(other)

    with pytest.raises(InstallError, match="not as this version knows it"):
        copy_storage(formatted, tmp_path / "copy", node=1, cluster="one")


def test_kafka_does_without_mapped_classes_where_they_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path))

    assert mapped_classes(tmp_path / "no-java", "17", tmp_path / "kafka-4", Steps(quiet=True)) is None
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
