"""What is made of Kafka once per machine: a formatted storage, and its classes as Java maps them into memory.

Without them every node would start a Java of its own to format its storage, and then read, check and link some
9,000 classes, which is nearly half of a start.
"""

import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from deploy.errors import InstallError
from deploy.native.environment import UMASK, of_children
from deploy.native.install.cache import cached
from deploy.native.install.system import last_lines
from deploy.native.ports import Ports, is_free
from deploy.progress import Steps

_FORMAT_TIMEOUT_S = 60
_START_TIMEOUT_S = 120
_END_TIMEOUT_S = 120
_POLL_S = 0.1
_CLASSES = "classes.jsa"
_LABELS = "meta.properties"
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=log
"""


def new_kafka_id() -> str:
    """A random id as Kafka makes them: never with a leading dash, which would read as an option."""
    while True:
        made = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made


def formatted_storage(java: Path, lib: Path) -> Path:
    """A storage as Kafka's own tool formats it, for `copy_storage`. Raises InstallError when the tool fails."""

    def build(directory: Path) -> None:
        settings = directory / "server.properties"
        settings.write_text(_SETTINGS.format(port=9092, controller=9093))
        command = [str(java), f"-Djava.io.tmpdir={directory}", "-XX:-UsePerfData", "-cp", f"{lib}/*"]
        command += ["kafka.tools.StorageTool", "format", "-t", new_kafka_id(), "-c", str(settings)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=of_children(),
                umask=UMASK,
                text=True,
                check=False,
                timeout=_FORMAT_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise InstallError(f"formatting Kafka's storage took longer than {_FORMAT_TIMEOUT_S} s") from error
        if done.returncode != 0:
            raise InstallError(f"formatting Kafka's storage failed:\n{last_lines(done.stdout)}")

    return cached(f"{lib.name}-storage", build) / "log"


def copy_storage(formatted: Path, storage: Path, *, node: int, cluster: str) -> None:
    """Make `storage` the formatted one of this node of this cluster; it must not exist.

    Raises InstallError when the labels are not those that we know.
    """
    labels = {"node.id": str(node), "cluster.id": cluster, "directory.id": new_kafka_id()}
    lines = [line for line in (formatted / _LABELS).read_text().splitlines() if not line.startswith("#")]
    if {line.partition("=")[0] for line in lines} != {*labels, "version"} or "version=1" not in lines:
        raise InstallError(f"{formatted / _LABELS} is not as this version knows it; remove that directory")
    shutil.copytree(formatted, storage)
    text = "".join(f"{name}={value}\n" for name, value in {"version": "1", **labels}.items())
    (storage / _LABELS).write_text(text)


def mapped_classes(java: Path, java_build: str, lib: Path, steps: Steps) -> Path | None:
    """The archive for `-XX:SharedArchiveFile`, of 48 MB; made by a node that is started for it, once per Java.

    None when that fails: Kafka only starts faster with it. Java itself leaves an archive alone that does not fit.
    """

    def build(directory: Path) -> None:
        with (
            steps.step("keeping Kafka's classes ready for quick starts (48 MB, once)"),
            tempfile.TemporaryDirectory(prefix="tandem-kafka-") as place,
        ):
            _start_once(java, lib, Path(place), directory / _CLASSES)

    try:
        return cached(f"{lib.name}-java-{java_build}", build) / _CLASSES
    except (InstallError, OSError, subprocess.TimeoutExpired) as error:
        steps.say(f"Kafka will start slower: {error}")
        return None


def _start_once(java: Path, lib: Path, place: Path, archive: Path) -> None:
    """Start a node and end it: Java writes then which classes it had. Raises InstallError when it writes none."""
    port, controller = Ports.free_block().kafka_node(1)
    settings, log = place / "server.properties", place / "kafka.log"
    settings.write_text(_SETTINGS.format(port=port, controller=controller))
    copy_storage(formatted_storage(java, lib), place / "log", node=1, cluster=new_kafka_id())
    command = ["setpriv", "--pdeathsig", "TERM", "--", str(java), f"-Djava.io.tmpdir={place}", "-XX:-UsePerfData"]
    command += [f"-XX:ArchiveClassesAtExit={archive}", "-cp", f"{lib}/*", "-Xmx384m", "kafka.Kafka", str(settings)]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=place, env=of_children(), umask=UMASK
        ) as node,
    ):
        try:
            deadline = time.monotonic() + _START_TIMEOUT_S
            while is_free(port) and node.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            node.send_signal(signal.SIGTERM)
            node.wait(_END_TIMEOUT_S)
        finally:
            node.kill()
    if not archive.exists():
        raise InstallError(f"no archive of Kafka's classes came about:\n{last_lines(log.read_text())}")
