"""The tree as text and syntax: what the architecture tests look at."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

from shared.garbage import collect_nothing, collect_seldom

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("services", "shared", "deploy", "experiment", "compare", "bench", "faults", "examples", "docs")


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return tuple(path for name in listed if (path := REPOSITORY / name).is_file())


def modules(*packages: str) -> list[Path]:
    """The Python files below these top-level packages."""
    return [
        path
        for path in tracked_files()
        if path.suffix == ".py" and path.relative_to(REPOSITORY).parts[0] in packages
    ]


@cache
def tree(path: Path) -> ast.Module:
    """Without a garbage collection meanwhile: what it finds may log a traceback, which parses, and the parser of
    Python 3.11.2 cannot be entered twice ("AST constructor recursion depth mismatch")."""
    collect_nothing()
    try:
        return ast.parse(path.read_text(), str(path))
    finally:
        collect_seldom()


def imports(path: Path) -> set[str]:
    """The dotted names of every import in the file, wherever it stands."""
    return imports_of(tree(path))


def imports_of(module: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def imports_any(path: Path, *roots: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for name in imports(path) for root in roots)


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))
