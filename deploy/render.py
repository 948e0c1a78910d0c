"""Writes what other files tell of deploy/topology.py, so that a service is one row there.

In each of those files the part that is derived stands between two lines of comment, or is a table that is known by
its heading; all the rest of the file is written by hand.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from deploy.errors import DeployError
from deploy.paths import REPOSITORY
from deploy.topology import SERVICE_TABLE, SERVICES, Service, ServiceProcess, own_settings

_BEGIN = "# >>> from deploy/topology.py by `make render`"
_END = "# <<<"
_TABLE_HEAD = "| service | port | |\n|---|---|---|\n"


def render(root: Path = REPOSITORY) -> list[Path]:
    """Bring every file under `root` up to date; returns those that changed.

    Raises DeployError for a file that has lost the place of what is derived.
    """
    changed = []
    for name, derive in FILES.items():
        place = root / name
        before = place.read_text()
        after = derive(before, name)
        if after != before:
            place.write_text(after)
            changed.append(place)
    return changed


def services_table() -> str:
    """The README's table of services, in the order of their ports; ends with a line break."""
    rows = [
        f"| {row.name} | [{row.http_port}](http://127.0.0.1:{row.http_port}/docs) | {service.interface} |\n"
        for service in sorted(SERVICE_TABLE, key=lambda service: service.http_port)
        for row in service.processes
        if row.has_api
    ]
    return _TABLE_HEAD + "".join(rows)


# -- the parts of the Compose file


def _environments() -> str:
    """What the processes of a service have in common, and what its first process is told."""
    return "\n".join("".join(_environment(service)) for service in SERVICE_TABLE)


def _environment(service: Service) -> Iterator[str]:
    [first, *_] = service.processes
    yield f"x-{first.name}-environment: &{first.name}-environment\n"
    yield "  <<: *environment\n"
    database = f"postgres:5432/{service.name}"
    yield f"  TANDEM_POSTGRES_DSN: postgresql://tandem:${{TANDEM_POSTGRES_PASSWORD:-tandem}}@{database}\n"
    yield from _lines(_told(first), 2)
    yield from _lines(own_settings(service.name, lambda row: f"http://{row.name}:{row.http_port}"), 2)


def _told(process: ServiceProcess) -> dict[str, str]:
    return {
        "TANDEM_PROCESS": process.name,
        "TANDEM_HTTP_PORT": str(process.http_port),
        "TANDEM_ROLES": process.roles,
    }


def _lines(values: Mapping[str, str], indent: int) -> Iterator[str]:
    return (f"{' ' * indent}{key}: {value}\n" for key, value in values.items())


def _migrations() -> str:
    return "\n".join("".join(_migration(service)) for service in SERVICE_TABLE)


def _migration(service: Service) -> Iterator[str]:
    yield f"  migrate-{service.name}:\n"
    yield "    <<: *migration\n"
    if service is SERVICE_TABLE[0]:
        yield "    # Built here only; the others use the image.\n"
        yield "    build:\n"
        yield "      context: ../..\n"
        yield "      dockerfile: deploy/compose/Dockerfile\n"
        yield "      target: services\n"
    yield f"    command: [python, -m, shared.migrate, {service.name}]\n"
    yield f"    environment: *{service.processes[0].name}-environment\n"


def _processes() -> str:
    return "\n".join("".join(_process(service, row)) for service in SERVICE_TABLE for row in service.processes)


def _process(service: Service, process: ServiceProcess) -> Iterator[str]:
    [first, *others] = service.processes
    yield f"  {process.name}:\n"
    yield "    <<: *process\n"
    yield f"    command: [python, -m, services.{service.name}.app]\n"
    if process == first:
        yield f"    environment: *{first.name}-environment\n"
    else:
        yield "    environment:\n"
        yield f"      <<: *{first.name}-environment\n"
        yield from _lines(_told(process), 6)
    yield f'    ports: ["127.0.0.1:{process.http_port}:{process.http_port}"]\n'
    if process != first:
        yield f"    depends_on: *{first.name}-ready\n"
        return
    yield f"    depends_on: &{first.name}-ready\n" if others else "    depends_on:\n"
    yield "      <<: *servers-up\n"
    yield f"      migrate-{service.name}: {{condition: service_completed_successfully}}\n"


def _databases() -> str:
    return f"for database in {' '.join(SERVICES)}; do\n"


# -- where the parts go


def _between_comments(**parts: Callable[[], str]) -> Callable[[str, str], str]:
    """Each part, by its name, goes between a line `# >>> …: <name>` and the next line `# <<<`."""

    def derive(text: str, name: str) -> str:
        for part, make in parts.items():
            begin, end = re.escape(f"{_BEGIN}: {part}\n"), re.escape(_END)
            text = _replaced(rf"(?<={begin}).*?(?=^[ ]*{end}$)", make(), text, f"{name}, its part `{part}`")
        return text

    return derive


def _readme(text: str, name: str) -> str:
    return _replaced(
        rf"{re.escape(_TABLE_HEAD)}(\|.*?\n)*", services_table(), text, f"{name}, its table of services"
    )


def _replaced(pattern: str, by: str, text: str, place: str) -> str:
    text, count = re.subn(pattern, lambda _: by, text, flags=re.MULTILINE | re.DOTALL)
    if count != 1:
        raise DeployError(f"what is derived has lost its place, or has two: {place}")
    return text


FILES: Mapping[str, Callable[[str, str], str]] = {
    "deploy/compose/compose.yml": _between_comments(
        environments=_environments, migrations=_migrations, processes=_processes
    ),
    "deploy/compose/create-databases.sh": _between_comments(databases=_databases),
    "README.md": _readme,
}
