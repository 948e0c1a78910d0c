"""What `up` and `down` do before and after anything runs: whose data is there, and who else is at work."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.command_line import main
from deploy.errors import DeployError
from deploy.native import Ports
from deploy.native.site import write_state
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.stack import choice as stack
from deploy.stack import native
from deploy.stack.native import NativeStack
from deploy.stack.settings import require_good_passwords, require_good_settings
from deploy.topology import BROKERS, BrokerName
from shared.errors import ConfigurationError

QUIET = Steps(quiet=True)
HOLD_AND_TELL = """
import sys
from pathlib import Path
from deploy.progress import Steps
from deploy.stack.lock import alone
with alone(Path(sys.argv[1]), "up rabbit", Steps(), wait_max_s=10):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack of nobody's, natively."""
    monkeypatch.setenv("RUNTIME", "native")
    monkeypatch.setattr(stack, "STACK_ROOT", tmp_path / "stack")
    return tmp_path / "stack"


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """The command takes them for its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def data_of(root: Path, *names: str) -> list[Path]:
    """What was there when somebody said `make down`."""
    root.mkdir(exist_ok=True)
    state = {"ports": Ports.default().as_dict(), "password": "secret", "servers": ["rabbit"], "sets": {}}
    write_state(root, state)
    kept = [root / "data" / name / "events" for name in names]
    for file in kept:
        file.parent.mkdir(parents=True)
        file.touch()
    return kept


@contextmanager
def another_up(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Somebody else's `up`, under way until it is killed."""
    command = [sys.executable, "-c", HOLD_AND_TELL, str(root.with_name("stack.lock"))]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as held:
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "held\n"
            yield held
        finally:
            held.kill()


@pytest.mark.parametrize(
    ("names", "nodes", "wrote"),
    [(["rabbit"], 3, 1), (["rabbit", "rabbit-2", "rabbit-3"], 1, 3)],
    ids=["one-to-three", "three-to-one"],
)
def test_another_number_of_nodes_is_refused_in_one_sentence_and_nothing_is_deleted(
    root: Path, names: list[str], nodes: int, wrote: int
) -> None:
    kept = data_of(root, *names, "postgres")

    with pytest.raises(DeployError, match=rf"^[^\n]*RabbitMQ is of {wrote} node[^\n]*NODES={wrote}[^\n]*$"):
        stack.up("rabbit", QUIET, nodes)

    assert all(file.exists() for file in kept)


def test_the_data_of_as_many_nodes_or_of_the_other_broker_is_in_nobodys_way(root: Path) -> None:
    data_of(root, "rabbit", "kafka", "kafka-2", "kafka-3")

    known = NativeStack(root, QUIET)
    known._require_data_of("rabbit", 1)
    known._require_data_of("kafka", 3)


def test_down_keeps_the_data_unless_it_is_told_to_delete_it(root: Path) -> None:
    kept = data_of(root, "rabbit", "postgres")

    stack.down(QUIET)
    assert all(file.exists() for file in kept)

    stack.down(QUIET, volumes=True)
    assert not root.exists()


def test_a_second_up_is_refused_and_told_who_is_at_work(root: Path) -> None:
    with (
        another_up(root) as first,
        pytest.raises(DeployError, match=rf"^`up rabbit` \(process {first.pid}\) is under way[^\n]*$"),
    ):
        stack.up("rabbit", QUIET)


def test_down_waits_for_an_up_only_so_long_and_says_how_to_end_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "_DOWN_WAIT_MAX_S", 0.2)

    with another_up(root) as first, pytest.raises(DeployError, match=f"`kill {first.pid}`"):
        stack.down(QUIET)


def test_down_goes_on_when_the_up_is_killed_however_that_was(root: Path) -> None:
    with another_up(root) as first, ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(stack.down, QUIET)
        first.kill()
        assert waiting.result(timeout=20) is False


def test_which_runtime_is_forced_is_asked_in_one_place() -> None:
    askers = [
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "deploy").rglob("*.py")
        if '"RUNTIME"' in path.read_text()
    ]
    assert askers == ["deploy/stack/choice.py"]


def test_a_runtime_that_there_is_not_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME", "podman")

    with pytest.raises(DeployError, match=r"^RUNTIME must be docker or native, not 'podman'$"):
        stack.up("rabbit", QUIET)


BAD_SETTINGS = {
    "TANDEM_DEAD_LETTER_TTL_S": "7776000",
    "TANDEM_BATCHMAX": "5",
    "TANDEM_BATCH_MAX": "many",
    "TANDEM_DELAY_MAX_S": "inf",
    "TANDEM_SHUTDOWN_GRACE_S": "121",
    "TANDEM_RATE_LIMIT_PER_S": "mail.oder=1",
    "TANDEM_MAIL_FROM": "nobody",
    "TANDEM_FAILPOINTS": "nowhere=kill",
}


@pytest.mark.parametrize("runtime", ["native", "docker"])
@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS.items(), ids=BAD_SETTINGS)
def test_a_bad_setting_is_refused_before_anything_starts_alike_on_both_brokers_and_runtimes(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runtime: str,
    broker: BrokerName,
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv("RUNTIME", runtime)
    monkeypatch.setenv(name, value)

    assert main(["up", broker]) == 78

    said = capsys.readouterr()
    assert said.err.startswith(f"tandem: bad settings: {name}")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not root.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"TANDEM_MAIL_FROM": '"Shop, Ltd." <shop@example.org>'},
        {"TANDEM_ALERT_MAIL_TO": '"Ops, all" <ops@example.org>'},  # with the runtime's own mail server
        {"TANDEM_RATE_LIMIT_PER_S": "mail.order=50", "TANDEM_SMTP_URL": ""},
        {"TANDEM_ALERT_WEBHOOK_URL": "", "TANDEM_OTLP_ENDPOINT": "", "TANDEM_BATCH_MAX": ""},
        {"TANDEM_CACHE": "/elsewhere", "TANDEM_TEST_SERVERS": "/servers", "TANDEM_RABBIT_PASSWORD": "secret"},
        {"TANDEM_HTTP_PORT": "ours is decided by the runtime", "TANDEM_BROKER": "kafka"},
    ],
)
@pytest.mark.parametrize("broker", BROKERS)
def test_good_settings_are_no_reason_to_refuse(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], broker: BrokerName
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    require_good_settings(broker, nodes=1)


def test_more_copies_than_kafka_has_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_KAFKA_REPLICATION_FACTOR", "3")

    require_good_settings("kafka", nodes=3)
    require_good_settings("rabbit", nodes=1)
    with pytest.raises(ConfigurationError, match="TANDEM_KAFKA_REPLICATION_FACTOR is 3, and Kafka has 1"):
        require_good_settings("kafka", nodes=1)


@pytest.mark.parametrize("password", ["p@ss", "a b", "a/b", "per%cent", "ümlaut"])
def test_a_password_that_an_url_cannot_carry_is_refused(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("TANDEM_REDIS_PASSWORD", "")
    monkeypatch.setenv("TANDEM_RABBIT_PASSWORD", password)

    with pytest.raises(
        ConfigurationError, match=r"TANDEM_RABBIT_PASSWORD may have letters, digits and \._~- only$"
    ):
        require_good_passwords()


def test_services_are_given_the_callers_settings_of_services_and_nothing_else() -> None:
    caller = {
        "TANDEM_MAIL_FROM": '"Shop, Ltd." <shop@example.org>',
        "TANDEM_SMTP_URL": "",
        "TANDEM_CACHE": "/elsewhere",
        "TANDEM_TEST_SERVERS": "/servers",
        "TANDEM_RABBIT_PASSWORD": "secret",
        "TANDEM_HTTP_PORT": "1",
        "PATH": "/bin",
    }

    assert native._settings_of(caller) == {name: caller[name] for name in ("TANDEM_MAIL_FROM", "TANDEM_SMTP_URL")}


def test_a_place_that_is_somebody_elses_is_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(root))

    monkeypatch.setattr(stack, "alone", refuse)

    assert main(["up", "rabbit"]) == 1
    assert capsys.readouterr().err == f"tandem: Permission denied: {root}\n"


# -- what make passes on


def test_make_decides_how_its_python_runs() -> None:
    foreign = {
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "PYTHONHOME": "/nowhere",
        "PYTHONIOENCODING": "latin-1",
        "PGSSLMODE": "verify-full",
        "PGSERVICE": "nosuch",
        "OTEL_SDK_DISABLED": "true",
        "LD_PRELOAD": "",
    }
    kept = {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "TANDEM_BATCH_MAX": "5",
        "RUNTIME": "native",
    }
    command = ["make", "--no-print-directory", "--eval", "what-make-passes-on: ; env", "what-make-passes-on"]

    said = subprocess.check_output(command, cwd=REPOSITORY, env={**foreign, **kept}, text=True)

    passed = dict(line.split("=", 1) for line in said.splitlines())
    assert passed.items() >= {**kept, "PYTHONUTF8": "1"}.items()
    assert not passed.keys() & foreign.keys()
