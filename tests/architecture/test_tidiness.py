"""What a reader trips over: files too long, modules without a word, leftovers, addresses of one machine."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.source import PACKAGES, REPOSITORY, modules, relative, tracked_files, tree

LINES_MAX = 452
LEFTOVER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME"]) + r")\b")
REGISTRY = re.compile(r"https?://[a-z0-9.-]*(pypi|npmjs|debian|maven|crates|golang|pythonhosted)[a-z0-9.-]*", re.I)
MACHINE_PATH = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:work|farm|root)/[a-z]")
BINARY = {".png", ".gz", ".hlog"}


def lines() -> list[tuple[str, int, str]]:
    return [
        (relative(path), number, line)
        for path in tracked_files()
        if path.suffix not in BINARY
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
    ]


def matching(pattern: re.Pattern[str]) -> list[str]:
    return [f"{name}:{number}: {line.strip()[:100]}" for name, number, line in lines() if pattern.search(line)]


def test_no_python_file_is_longer_than_one_holds_in_the_head() -> None:
    long = {relative(path): len(path.read_text().splitlines()) for path in modules(*PACKAGES, "tests")}
    assert {name: count for name, count in long.items() if count > LINES_MAX} == {}


def test_every_module_says_what_it_is() -> None:
    mute = [
        relative(path)
        for path in modules(*PACKAGES)
        if path.read_text().strip() and not ast.get_docstring(tree(path))
    ]
    assert mute == []


def test_no_leftovers() -> None:
    assert matching(LEFTOVER) == []


def test_no_registry_is_named() -> None:
    assert matching(REGISTRY) == []


def test_no_path_of_a_machine() -> None:
    assert matching(MACHINE_PATH) == []


@pytest.mark.parametrize(
    ("pattern", "planted"),
    [
        (LEFTOVER, "x = 1  # TO" + "DO later"),
        (REGISTRY, "index = https" + "://pypi.example/simple"),
        (MACHINE_PATH, "root = '/wo" + "rk/main'"),
    ],
)
def test_the_patterns_find_what_is_planted(pattern: re.Pattern[str], planted: str) -> None:
    assert pattern.search(planted)


def test_the_readme_has_no_placeholder_left() -> None:
    assert "<!--" not in (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", ".ci/run"]
)
def test_the_front_door_is_there(name: str) -> None:
    assert (REPOSITORY / name).is_file()


def test_relative_links_of_the_documents_lead_somewhere() -> None:
    broken = [
        f"{relative(path)} → {target}"
        for path in tracked_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert broken == []
