"""What the brokers run on is read from their command lines, from Java itself, and from the table of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiment.runtimes import erlang_flags, jvm_flags, jvm_options, mounted_on, mounts

JAVA = [
    "/usr/bin/java", "-Djava.io.tmpdir=/data/tmp", "-XX:-UsePerfData", "-cp", "/cache/kafka/*",
    "-XX:SharedArchiveFile=/cache/classes.jsa", "-Xms512m", "-Xmx512m", "-Dorg.slf4j=warn", "kafka.Kafka",
    "-Xnot-for-java",
]  # fmt: skip
BEAM = ["/usr/lib/erlang/erts-17.1/bin/beam.smp", "-W", "w", "-sbwt", "none", "--", "-root", "/usr/lib/erlang"]
PRINTED = """\
[Global flags]
    uintx InitialHeapSize = 536870912  {product} {command line}
     bool UseG1GC = true  {product} {ergonomic}
     bool UsePerfData = false  {product} {command line}
     bool PrintFlagsFinal = true  {product} {command line}
    ccstr HeapDumpPath =  {manageable} {default}
     bool ZProactive = true  {product} {default}
"""
KNOWN = [
    (Path("/"), "overlay (rw)"),
    (Path("/volume"), "ext4 (rw,relatime)"),
    (Path("/volume"), "xfs (rw,noatime)"),
    (Path("/volume/data"), "tmpfs (rw)"),
]


def test_options_of_java_are_told_without_paths_and_without_what_is_run() -> None:
    assert jvm_options(JAVA) == ["-XX:-UsePerfData", "-Xms512m", "-Xmx512m"]


def test_of_all_flags_of_java_those_are_told_that_are_no_defaults() -> None:
    assert jvm_flags(PRINTED) == {
        "InitialHeapSize": "536870912 (command line)",
        "UseG1GC": "true (ergonomic)",
        "UsePerfData": "false (command line)",
    }


def test_flags_of_the_emulator_end_before_those_of_the_node() -> None:
    assert erlang_flags(BEAM) == "-W w -sbwt none"
    assert erlang_flags(BEAM[:3]) == "-W w"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/volume/data/kafka", "tmpfs (rw)"),
        ("/volume/database", "xfs (rw,noatime)"),
        ("/volumes", "overlay (rw)"),
        ("/", "overlay (rw)"),
    ],
)
def test_a_directory_is_where_the_nearest_and_latest_mount_above_it_is(place: str, said: str) -> None:
    assert mounted_on(Path(place), KNOWN) == said


def test_this_machine_says_how_a_directory_is_mounted(tmp_path: Path) -> None:
    said = mounts({"postgres": tmp_path})["postgres"]
    assert said.endswith(")")
    assert "rw" in said
