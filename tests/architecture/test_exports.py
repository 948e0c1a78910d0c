"""What a package offers stands in its `__all__`, and nobody outside takes anything else from it."""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGES, REPOSITORY, modules, relative, tree

Uses = dict[str, dict[str, set[str]]]
"""By package: what is taken from it, and by which files outside it."""

PACKAGE_NAMES = sorted(
    ".".join(path.parent.relative_to(REPOSITORY).parts)
    for path in modules(*PACKAGES)
    if path.name == "__init__.py" and "migrations" not in path.parts
)


def dotted(path: Path) -> str:
    return relative(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def taken(module: ast.Module) -> set[str]:
    """Dotted names of all that a file imports, with the module that it is from."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def uses_in(files: dict[str, ast.Module]) -> Uses:
    """What files, by their dotted names, take from packages that they do not stand in."""
    uses: Uses = {package: {} for package in PACKAGE_NAMES}
    for importer, module in files.items():
        for name in taken(module):
            parts = name.split(".")
            for depth in range(1, len(parts)):
                package = ".".join(parts[:depth])
                if package in uses and not f"{importer}.".startswith(f"{package}."):
                    uses[package].setdefault(parts[depth], set()).add(importer)
    return uses


@cache
def uses() -> Uses:
    return uses_in({dotted(path): tree(path) for path in modules(*PACKAGES, "examples", "docs")})


def exported(package: str) -> list[str]:
    return list(import_module(package).__all__)


@pytest.mark.parametrize("package", PACKAGE_NAMES)
def test_a_package_exports_what_others_use_and_no_more(package: str) -> None:
    """A name that only tests take is not exported: tests may look inside."""
    taken_from_it = uses()[package]
    hidden = {name: sorted(by) for name, by in taken_from_it.items() if name not in exported(package)}
    assert hidden == {}, f"{package} does not export what others take from it"
    assert set(exported(package)) - set(taken_from_it) == set(), f"nobody takes this from {package}"


@pytest.mark.parametrize("package", PACKAGE_NAMES)
def test_what_a_package_exports_is_there_and_named_once(package: str) -> None:
    names = exported(package)
    place = REPOSITORY / package.replace(".", "/")
    there = vars(import_module(package))
    missing = [
        name
        for name in names
        if name not in there and not (place / f"{name}.py").is_file() and not (place / name).is_dir()
    ]
    assert missing == []
    assert len(names) == len(set(names))


def test_a_planted_look_inside_is_found() -> None:
    planted = {"services.order.planted": ast.parse("from shared.consuming.claiming import Claiming\n")}
    assert uses_in(planted)["shared.consuming"] == {"claiming": {"services.order.planted"}}
    assert "claiming" not in exported("shared.consuming")


def test_a_package_may_look_inside_itself() -> None:
    inside = {"shared.consuming.planted": ast.parse("from shared.consuming.claiming import Claiming\n")}
    assert uses_in(inside)["shared.consuming"] == {}
