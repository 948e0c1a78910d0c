"""Who may import whom (design: services → shared, never back, never sideways)."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pkgutil import resolve_name

import pytest

from tests.architecture.source import (
    PACKAGES,
    REPOSITORY,
    imports,
    imports_any,
    imports_of,
    modules,
    relative,
    tree,
)

SERVICES = sorted(path.name for path in (REPOSITORY / "services").iterdir() if (path / "app.py").is_file())
TOOLS = ("deploy", "compare", "bench", "faults", "tests")
FIVE_FILES = {"app.py", "domain.py", "events.py", "handlers.py", "store.py"}
AND_PERHAPS = {"http.py", "background.py"}


def offenders(*packages: str, allowed: tuple[str, ...], roots: tuple[str, ...]) -> list[str]:
    """Files of `packages` outside `allowed` (prefixes) that import any of `roots`."""
    return [
        relative(path)
        for path in modules(*packages)
        if not relative(path).startswith(allowed) and imports_any(path, *roots)
    ]


def test_there_are_services_to_look_at() -> None:
    assert {"order", "user", "notification"} <= set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_never_imports_another(service: str) -> None:
    others = tuple(f"services.{other}" for other in SERVICES if other != service)
    own = [path for path in modules("services") if path.parent.name == service]
    assert [relative(path) for path in own if imports_any(path, *others)] == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_same_five_files_and_perhaps_http_and_background(service: str) -> None:
    names = {path.name for path in (REPOSITORY / "services" / service).glob("*.py")} - {"__init__.py"}
    assert names >= FIVE_FILES
    assert names <= FIVE_FILES | AND_PERHAPS


@pytest.mark.parametrize("service", SERVICES)
def test_http_is_built_in_http_py(service: str) -> None:
    """It is imported by name, for the role `api` alone."""
    where = import_module(f"services.{service}.app").SERVICE.application
    there = (REPOSITORY / "services" / service / "http.py").is_file()
    assert where == (f"services.{service}.http:create_app" if there else None)
    assert where is None or callable(resolve_name(where))


def test_shared_knows_no_service_and_no_tool() -> None:
    assert offenders("shared", allowed=("-",), roots=("services", *TOOLS)) == []


def test_services_import_nothing_of_the_tools() -> None:
    assert offenders("services", allowed=("-",), roots=TOOLS) == []


def test_only_the_adapters_import_faststream_and_the_clients() -> None:
    roots = ("faststream", "aio_pika", "aiormq", "aiokafka")
    assert offenders("services", "shared", allowed=("shared/broker/",), roots=roots) == []


def test_each_adapter_imports_its_own_client_only() -> None:
    assert offenders("shared", allowed=("shared/broker/kafka",), roots=("aiokafka", "faststream.kafka")) == []
    rabbit = ("aio_pika", "aiormq", "faststream.rabbit")
    assert offenders("shared", allowed=("shared/broker/rabbit",), roots=rabbit) == []


def test_only_http_imports_fastapi() -> None:
    allowed = ("shared/http/", *(f"services/{service}/http.py" for service in SERVICES))
    assert offenders(*PACKAGES, allowed=allowed, roots=("fastapi",)) == []


@pytest.mark.parametrize("service", SERVICES)
def test_no_file_of_a_service_imports_its_http(service: str) -> None:
    own = [path for path in modules("services") if path.parent.name == service]
    assert [relative(path) for path in own if imports_any(path, f"services.{service}.http")] == []


def test_only_telemetry_imports_opentelemetry() -> None:
    assert (
        offenders("services", "shared", allowed=("shared/telemetry/telemetry.py",), roots=("opentelemetry",)) == []
    )


@pytest.mark.parametrize("service", SERVICES)
def test_the_domain_is_pure(service: str) -> None:
    path = REPOSITORY / "services" / service / "domain.py"
    allowed = {"__future__", "collections", "dataclasses", "datetime", "decimal", "enum", "re", "typing", "uuid"}
    foreign = {name for name in imports(path) if name.split(".")[0] not in allowed}
    assert {name for name in foreign if not name.startswith(("shared.errors", "shared.backoff"))} == set()


def test_the_environment_is_read_in_one_place() -> None:
    """Settings; the migrations' command; telemetry, which has no other way to choose its conventions."""
    allowed = ("shared/settings.py", "shared/migrate.py", "shared/telemetry/telemetry.py")
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
