"""What a disk was asked to keep is read from the kernel's accounts, and what it does not say is not 0."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiment.disk import flushes, stored_bytes

STATISTICS = " 1257388 58904 30003834 921339 24707001 4336641 57070952 4895347 0 21 68 33 158 259 27 8803013 785\n"


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """As /sys/dev/block, without any device."""
    made = tmp_path / "devices"
    made.mkdir()
    return made


def numbers(place: Path) -> str:
    device = place.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def test_flushes_are_those_of_the_disk_that_a_place_is_on(tmp_path: Path, devices: Path) -> None:
    disk = devices / numbers(tmp_path)
    disk.mkdir()
    (disk / "stat").write_text(STATISTICS)
    assert flushes(tmp_path, devices) == 8_803_013


def test_a_partition_is_flushed_with_its_disk(tmp_path: Path, devices: Path) -> None:
    disk = tmp_path / "sda"
    (disk / "sda1").mkdir(parents=True)
    (disk / "stat").write_text(STATISTICS)
    (disk / "sda1" / "partition").write_text("1\n")
    (disk / "sda1" / "stat").write_text(STATISTICS.replace("8803013", "0"))
    (devices / numbers(tmp_path)).symlink_to(disk / "sda1")
    assert flushes(tmp_path, devices) == 8_803_013


def test_flushes_that_the_kernel_does_not_tell_are_not_known(tmp_path: Path, devices: Path) -> None:
    assert flushes(tmp_path, devices) is None, "no disk of its own"
    disk = devices / numbers(tmp_path)
    disk.mkdir()
    (disk / "stat").write_text("1 2 3 4 5 6 7 8 9 10 11\n")
    assert flushes(tmp_path, devices) is None, "a kernel before 5.5"


def test_what_is_stored_is_what_the_files_below_a_place_take(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (below / "log").write_bytes(b"x" * 100_000)
    with (below / "set-aside").open("wb") as file:
        file.truncate(10**9)
    (tmp_path / "data").symlink_to(tmp_path / "a")
    assert 100_000 <= stored_bytes(tmp_path / "data") < 200_000, "a hole takes no disk"
    assert stored_bytes(tmp_path / "missing") == 0
