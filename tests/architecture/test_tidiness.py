"""What a reader trips over: files too long, modules without a word, leftovers, addresses of one machine."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.architecture.source import PACKAGES, REPOSITORY, modules, relative, tracked_files, tree

FILE_LINES_MAX = 400
CLASS_LINES_MAX = 200
LONGER: dict[str, str] = {
    "deploy/native/runtime.py Runtime": "composes an instance of parts, and each method says what it raises",
    "shared/settings.py": "the class is as long as the list of settings, and says what must go together",
    "shared/settings.py Settings": "one place, so that relations between any two can be checked",
    "tests/integration/world.py World": "all that one test stands on, so that a test reads in one place",
}
"""Files and classes that are longer all the same, each with a sentence that says why."""
LEFTOVER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME"]) + r")\b")
REGISTRY = re.compile(r"https?://[a-z0-9.-]*(pypi|npmjs|debian|maven|crates|golang|pythonhosted)[a-z0-9.-]*", re.I)
MACHINE_PATH = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:work|farm|root)/[a-z]")
BINARY = {".png", ".gz", ".hlog"}


@cache
def lines() -> list[tuple[str, int, str]]:
    return [
        (relative(path), number, line)
        for path in tracked_files()
        if path.suffix not in BINARY
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
    ]


def matching(pattern: re.Pattern[str]) -> list[str]:
    return [f"{name}:{number}: {line.strip()[:100]}" for name, number, line in lines() if pattern.search(line)]


def too_long(name: str, text: str, parsed: ast.Module | None = None) -> dict[str, int]:
    """The lines of what is too long in a Python file: of the file itself by its name, of a class by both names."""
    files = {name: len(text.splitlines())}
    classes = {
        f"{name} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(parsed or ast.parse(text))
        if isinstance(node, ast.ClassDef)
    }
    return {
        **{name: count for name, count in files.items() if count > FILE_LINES_MAX},
        **{name: count for name, count in classes.items() if count > CLASS_LINES_MAX},
    }


@cache
def all_too_long() -> dict[str, int]:
    found: dict[str, int] = {}
    for path in modules(*PACKAGES, "tests"):
        found |= too_long(relative(path), path.read_text(), tree(path))
    return found


def test_files_and_classes_are_no_longer_than_one_holds_in_the_head() -> None:
    assert {name: count for name, count in all_too_long().items() if name not in LONGER} == {}


def test_what_may_be_longer_is_longer_and_says_why() -> None:
    assert LONGER.keys() - all_too_long().keys() == set(), "no exception any more"
    assert [name for name, reason in LONGER.items() if len(reason.split()) < 5] == []


def test_a_line_too_much_is_seen() -> None:
    body = "    x = 1\n" * (CLASS_LINES_MAX - 1)
    assert too_long("a.py", f"class Long:\n{body}") == {}
    assert too_long("a.py", f"class Long:\n    y = 2\n{body}") == {"a.py Long": CLASS_LINES_MAX + 1}
    assert too_long("a.py", "x = 1\n" * FILE_LINES_MAX) == {}
    assert too_long("a.py", "x = 1\n" * (FILE_LINES_MAX + 1)) == {"a.py": FILE_LINES_MAX + 1}


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
