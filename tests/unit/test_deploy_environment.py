"""What the runtime starts has an environment of its own and reaches its files, whatever shell that is asked in."""

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.native import ports as ports_module
from deploy.native import site as site_module
from deploy.native.environment import SYSTEM_PATH, forget_libpq, of_children, of_installers, through_sudo
from deploy.native.install import install, system
from deploy.native.ports import Ports
from deploy.native.site import Site, write_secret, write_state
from deploy.paths import REPOSITORY, make_directory

CALLER = {
    "PATH": "/opt/bin",
    "HOME": "/home/Zoë, her own",
    "LC_ALL": "de_DE.ISO-8859-1",
    "LANG": "C",
    "PYTHONDONTWRITEBYTECODE": "1",
    "JDK_JAVA_OPTIONS": "-XX:+UseSerialGC",
}
FOREIGN = {
    "PGSSLMODE": "require",
    "PGSERVICE": "nosuch",
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONHOME": "/nowhere",
    "OTEL_SDK_DISABLED": "true",
    "OTEL_EXPORTER_OTLP_HEADERS": "key=value",
    "LD_PRELOAD": "/nowhere.so",
    "JAVA_TOOL_OPTIONS": "-Xbogus",
    "_JAVA_OPTIONS": "-Xbogus",
    "CLASSPATH": "/nowhere",
    "ERL_FLAGS": "-bogus",
    "ERL_LIBS": "/nowhere",
    "RABBITMQ_NODENAME": "other@nowhere",
    "RABBITMQ_CONFIG_FILE": "/nowhere",
    "SUPERVISOR_ENABLED": "1",
    "BASH_ENV": "/nowhere",
    "CDPATH": "/",
    "TANDEM_BATCH_MAX": "0",
}
NETWORK = {"https_proxy": "http://proxy:3128", "NO_PROXY": "localhost", "SSL_CERT_FILE": "/etc/ssl/own.pem"}


@pytest.fixture(params=[0o027, 0o077, 0o777], ids=oct)
def narrow_umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(place: Path) -> int:
    return place.stat().st_mode & 0o777


def test_servers_and_services_get_nothing_that_the_caller_set_for_other_work() -> None:
    given = of_children({**CALLER, **FOREIGN, **NETWORK})

    assert (
        given.items()
        >= {"HOME": CALLER["HOME"], "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}.items()
    )
    assert given["JDK_JAVA_OPTIONS"] == CALLER["JDK_JAVA_OPTIONS"], "documented: how to tell Kafka's Java more"
    assert not given.keys() & (FOREIGN.keys() | NETWORK.keys())


def test_installers_go_through_the_callers_proxies_also_under_sudo() -> None:
    caller = {**CALLER, **FOREIGN, **NETWORK}

    assert of_installers(caller).items() >= {**NETWORK, "DEBIAN_FRONTEND": "noninteractive"}.items()
    assert not of_installers(caller).keys() & FOREIGN.keys()
    assert {"https_proxy=http://proxy:3128", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"} <= {
        *through_sudo(caller)
    }
    assert not [word for word in through_sudo(caller) if word.startswith(("HOME=", "PATH="))]


@pytest.mark.parametrize("caller", [{}, {"PATH": ""}, {"PATH": "/opt/bin"}])
def test_the_systems_programs_are_found_whatever_the_callers_path_is(caller: dict[str, str]) -> None:
    path = of_children(caller)["PATH"].split(":")

    assert path[-len(SYSTEM_PATH.split(":")) :] == SYSTEM_PATH.split(":")
    assert "" not in path, "the working directory"


def test_libpqs_variables_are_forgotten_and_no_others() -> None:
    environment = {**CALLER, **FOREIGN}
    forget_libpq(environment)

    assert environment.keys() == {name for name in (*CALLER, *FOREIGN) if not name.startswith("PG")}


def test_a_tool_is_asked_in_the_words_of_no_language(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def answer(_command: object, *, env: dict[str, str], **_options: object) -> subprocess.CompletedProcess[str]:
        asked.append(env)
        return subprocess.CompletedProcess([], 0, stdout="redis:\n  Candidate: 5:7.0\n")

    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setattr(subprocess, "run", answer)

    assert system.package_candidate("redis") == "7.0"
    assert asked[0]["LC_ALL"] == "C.UTF-8"


def test_everything_that_is_started_gets_an_environment_that_is_not_the_callers() -> None:
    """Whoever adds a command says with which: one without `env` would get the caller's."""
    calls = [
        (f"{path.relative_to(REPOSITORY)}:{node.lineno}", {option.arg for option in node.keywords})
        for path in (REPOSITORY / "deploy" / "native").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess.")
        if ast.unparse(node.func) != "subprocess.CompletedProcess"
    ]
    assert len(calls) > 10
    assert [place for place, options in calls if "env" not in options] == []


# -- modes


def test_directories_can_be_passed_and_secrets_not_be_read_whatever_the_umask_is(
    tmp_path: Path, narrow_umask: int
) -> None:
    del narrow_umask
    site = Site.open(tmp_path / "a" / "b", Ports(25000))
    write_state(site.root, {"password": site.password})

    for place in (tmp_path / "a", site.root, site.data("redis"), site.root / "data", site.logs, site.telemetry):
        assert mode_of(place) == 0o755
    assert mode_of(site.programs) == 0o700
    assert mode_of(site.root / "instance.json") == 0o600


def test_a_secret_is_nobody_elses_even_where_the_file_was_open(tmp_path: Path) -> None:
    place = tmp_path / "order.sh"
    place.touch(mode=0o644)

    write_secret(place, "export PASSWORD=Zoë\n")

    assert mode_of(place) == 0o600
    assert place.read_text(encoding="utf-8") == "export PASSWORD=Zoë\n"


def test_what_an_earlier_start_left_closed_is_opened(tmp_path: Path) -> None:
    root = tmp_path / "stack"
    (root / "data" / "redis").mkdir(parents=True)
    write_state(root, {"password": "known"})
    for place in (root, root / "data", root / "data" / "redis"):
        place.chmod(0o700)

    site = Site.open(root, Ports(25000))

    assert site.password == "known"
    assert {mode_of(place) for place in (site.root, site.data("redis"), root / "data")} == {0o755}


def test_a_directory_that_is_no_instance_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    Site.open(tmp_path, Ports(25000))

    assert mode_of(tmp_path) == 0o700


def test_modes_that_are_wider_stay(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(0o2775)

    assert make_directory(tmp_path / "ours").stat().st_mode & 0o7777 == 0o2775


def test_the_data_of_another_user_is_reached_from_a_closed_root_also_after_a_start_under_a_narrow_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: list[Path] = []
    monkeypatch.setattr(site_module, "is_root", lambda: True)
    monkeypatch.setattr(os, "chown", lambda place, *_ids: owners.append(place))
    tmp_path.chmod(0o700)
    site = Site.open(tmp_path / "closed", Ports(25000))
    try:
        elsewhere = site.data("postgres", owner="root")
        assert not elsewhere.is_relative_to(tmp_path)
        elsewhere.parent.chmod(0o700)  # as the caller's umask once made it

        assert site.data("postgres", owner="root") == elsewhere
        assert mode_of(elsewhere.parent) == 0o755
        assert owners == [elsewhere, elsewhere]
    finally:
        site.remove()


def test_data_that_its_user_cannot_reach_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "is_root", lambda: True)
    tmp_path.chmod(0o700)
    site = Site.open(tmp_path / "closed", Ports(25000))
    make_directory(site.root / "data" / "postgres")  # from before somebody closed the directory above it

    with pytest.raises(DeployError, match=r"^[^\n]*cannot be reached by the user root[^\n]*$"):
        site.data("postgres", owner="root")


def test_a_cached_directory_that_an_earlier_run_left_closed_is_mended(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    hosts = tmp_path / "etc" / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    tmp_path.chmod(0o700)
    hosts.chmod(0o600)

    install._open_to_all(tmp_path)

    assert (mode_of(tmp_path), mode_of(hosts)) == (0o755, 0o644)


# -- the locks of ports


def test_a_lock_file_serves_every_user_whatever_the_umask_is(tmp_path: Path, narrow_umask: int) -> None:
    del narrow_umask
    os.close(ports_module._open_lock(tmp_path / "lock"))

    assert mode_of(tmp_path / "lock") == 0o644


def test_a_lock_file_that_another_user_left_is_locked_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    left = tmp_path / "tandem-ports-14000.lock"
    left.write_text("theirs")
    left.chmod(0o444)

    first = ports_module._lock_block(14000)
    assert first is not None
    assert ports_module._lock_block(14000) is None, "it is locked"
    ports_module._let_go(first)
    assert left.read_text() == "theirs"


def test_what_cannot_be_a_lock_file_costs_one_block_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "tandem-ports-14000.lock").symlink_to(tmp_path / "nowhere")

    assert ports_module._lock_block(14000) is None
    assert not (tmp_path / "nowhere").exists()
