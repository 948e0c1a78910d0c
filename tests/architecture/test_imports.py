"""What the contracts in pyproject.toml cannot say of imports, and what a service consists of."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests.architecture.source import (
    REPOSITORY,
    imports,
    imports_any,
    imports_of,
    modules,
    relative,
    tree,
)

SERVICES = sorted(path.name for path in (REPOSITORY / "services").iterdir() if (path / "app.py").is_file())
DOMAINS = [path for path in modules("services") if "domain" in (path.stem, path.parent.name)]
"""A service's rules: a file, or a package of files where there are many."""
ADAPTERS = REPOSITORY / "shared" / "broker"
FIVE_FILES = {"app.py", "domain.py", "events.py", "handlers.py", "store.py"}
AND_PERHAPS = {"http.py", "background.py"}


def test_there_are_services_to_look_at() -> None:
    assert {"order", "user", "notification"} <= set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_same_five_files_and_perhaps_http_and_background(service: str) -> None:
    folder = REPOSITORY / "services" / service
    names = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    names |= {f"{part.parent.name}.py" for part in folder.glob("*/__init__.py")} - {"migrations.py"}
    assert names >= FIVE_FILES
    assert names <= FIVE_FILES | AND_PERHAPS


@pytest.mark.parametrize("service", SERVICES)
def test_http_is_built_in_http_py(service: str) -> None:
    """It is imported by name, for the role `api` alone."""
    where = import_module(f"services.{service}.app").SERVICE.application
    folder = REPOSITORY / "services" / service
    there = (folder / "http.py").is_file() or (folder / "http" / "__init__.py").is_file()
    assert where == (f"services.{service}.http:create_app" if there else None)
    assert where is None or callable(resolve_name(where))


@pytest.mark.parametrize("path", DOMAINS, ids=relative)
def test_the_domain_is_pure(path: Path) -> None:
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "ipaddress",
        "re",
        "typing",
    }
    foreign = {
        name for name in imports(path) if name.split(".")[0] not in allowed | {"itertools", "uuid", "zoneinfo"}
    }
    own = f"services.{path.relative_to(REPOSITORY).parts[1]}.domain."
    pure = ("shared.errors", "shared.backoff", "shared.money", own)
    assert {name for name in foreign if not name.startswith(pure)} == set()


@pytest.mark.parametrize("broker", ["rabbit", "kafka"])
def test_each_adapter_alone_uses_its_part_of_faststream(broker: str) -> None:
    foreign = [path for path in modules("shared", "services") if not path.is_relative_to(ADAPTERS / broker)]
    assert [relative(path) for path in foreign if imports_any(path, f"faststream.{broker}")] == []
    assert any(imports_any(path, f"faststream.{broker}") for path in (ADAPTERS / broker).glob("*.py"))


def test_the_environment_is_read_in_one_place() -> None:
    """Settings; the migrations' command; telemetry, which has no other way to choose its conventions."""
    allowed = ("shared/settings.py", "shared/migrate.py", "shared/telemetry/provider.py")
    readers = [
        relative(path)
        for path in modules("services", "shared")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]
    assert sorted(set(readers) - set(allowed)) == []


def test_the_rule_finder_finds_a_broken_rule() -> None:
    """Planted: each form of import is seen."""
    planted = ast.parse("import faststream.rabbit as r\ndef f():\n    from services.user import store\n")
    assert {"faststream.rabbit", "services.user", "services.user.store"} <= imports_of(planted)


def test_nothing_connects_at_import() -> None:
    """Every module can be imported with sockets forbidden and no settings in the environment."""
    names = [
        relative(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for path in modules("services", "shared")
        if "migrations" not in path.parts
    ]
    program = (
        "import socket, importlib\n"
        "def refuse(*a, **k): raise SystemExit('a socket at import')\n"
        "socket.socket.connect = socket.socket.connect_ex = refuse\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(  # noqa: PLW1510 - the assertion shows what it said
        command, cwd=REPOSITORY, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2_000:]
