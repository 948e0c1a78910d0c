"""The containers of one comparison: the servers, and the harness whose network they share.

That network leads nowhere: nothing is published, and nobody else can reach them. All are called after the
checkout, so that a run finds and removes what one left that was killed outright.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from compare.containers.errand import ERRAND, REPORT
from deploy.errors import DeployError
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.stack.compared import ServerContainer
from deploy.stack.compose import COMPOSE_FILE
from deploy.stack.docker import Engine, docker
from deploy.topology import ServerName
from experiment.containers import SOCKET
from experiment.signals import Interrupted, hold_signals, ignore_signals

_DOCKERFILE = COMPOSE_FILE.with_name("Dockerfile")
_LABEL = "tandem.compare"
_WORK = "/app/.run"
"""Where the harness writes: a volume, as the servers' data is."""
_FAILED_LOGS = f"{_WORK}/compare-failed-logs"
_IMAGE_TIMEOUT_S = 1200.0
_CREATE_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 300.0
"""Of a harness that was asked to end: services, logs, the report of what was measured."""
_STANDARD_ERROR = 2
_NOTHING_THERE = ("could not find the file", "no such container:path", "no such file")


class Crew:
    """All containers of one run. Every method blocks, and raises `DeployError` when the engine refuses."""

    def __init__(self, engine: Engine, servers: Mapping[ServerName, ServerContainer], steps: Steps) -> None:
        self._engine = engine
        self._servers = servers
        self._steps = steps
        self._called = f"tandem-compare-{hashlib.sha256(os.fsencode(REPOSITORY)).hexdigest()[:10]}"
        self._harness = f"{self._called}-harness"
        self.names = {server: f"{self._called}-{server}" for server in servers}
        """By server."""

    def start(self, errand: str) -> None:
        """Get the images, make every container and start it; the harness waits for the servers at once."""
        for image in sorted({each.image for each in self._servers.values()}):
            self._pull(image)
        with self._steps.step("building the harness's image"):
            built = self._build()
        with self._steps.step("starting the containers"):
            self._create(self._harness, [*self._own_words(), built, "python", "-m", "compare.containers.inside"])
            _put(self._harness, {str(ERRAND): errand})
            for server, container in self._servers.items():
                words = ["--network", f"container:{self._harness}", *container.words()]
                self._create(self.names[server], words, container.environment)
                if container.files:
                    _put(self.names[server], container.files)
            docker("start", self._harness, timeout_s=_CREATE_TIMEOUT_S)
            docker("start", *self.names.values(), timeout_s=_CREATE_TIMEOUT_S)

    def follow(self) -> int:
        """Show what the harness says until it has ended, and return its exit code. A signal is passed on to it,
        whenever it comes; once it has ended they are ignored: what was measured is there."""
        command = ["docker", "logs", "--follow", self._harness]
        shown: subprocess.Popen[bytes] | None = None
        with ExitStack() as stack:
            try:
                with hold_signals():
                    shown = stack.enter_context(
                        subprocess.Popen(
                            command, stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR, start_new_session=True
                        )
                    )
                    stack.callback(shown.kill)
                shown.wait()
                code = self._exit_code()
                ignore_signals()
            except Interrupted as signal_name:
                with suppress(DeployError):  # it has just ended by itself
                    docker("kill", "--signal", str(signal_name), self._harness)
                with suppress(subprocess.TimeoutExpired):
                    if shown is not None:
                        shown.wait(_END_TIMEOUT_S)
                code = self._exit_code()
                ignore_signals()
        return code

    def _exit_code(self) -> int:
        """Once it has ended."""
        return int(docker("wait", self._harness, timeout_s=_END_TIMEOUT_S))

    def fetch_report(self, place: Path) -> bool:
        """Copy the report of the harness, which has ended, to `place`; False where it left none."""
        return _fetch(self._harness, str(REPORT), place)

    def keep_logs(self, place: Path) -> None:
        """Copy the logs that the harness kept to `place`, with those of the servers, if it kept any."""
        shutil.rmtree(place, ignore_errors=True)
        if not _fetch(self._harness, _FAILED_LOGS, place):
            return
        for server, container in self.names.items():
            with (place / f"{server}.log").open("wb") as log:
                subprocess.run(
                    ["docker", "logs", container],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=False,
                    timeout=_CREATE_TIMEOUT_S,
                )

    def remove(self) -> None:
        """Remove every container of this checkout's comparisons, with its data; the images stay."""
        found = docker("ps", "--all", "--quiet", "--filter", f"label={_LABEL}={self._called}").decode().split()
        if found:
            with self._steps.step("removing the containers"):
                docker("rm", "--force", "--volumes", *found, timeout_s=_CREATE_TIMEOUT_S)

    def _pull(self, image: str) -> None:
        with suppress(DeployError):
            docker("image", "inspect", image)
            return
        with self._steps.step(f"pulling {image}"):
            docker("pull", "--quiet", image, timeout_s=_IMAGE_TIMEOUT_S)

    def _build(self) -> str:
        """By its id: another run may give the name to another image."""
        options = ("--file", str(_DOCKERFILE), "--target", "harness", "--tag", f"{self._called}:latest")
        return docker("build", "--quiet", *options, str(REPOSITORY), timeout_s=_IMAGE_TIMEOUT_S).decode().strip()

    def _create(self, name: str, words: list[str], told: Mapping[str, str] | None = None) -> None:
        common = ("--name", name, "--label", f"{_LABEL}={self._called}", "--no-healthcheck")
        docker("create", *common, *words, timeout_s=_CREATE_TIMEOUT_S, told=told)

    def _own_words(self) -> Iterator[str]:
        """Of the harness: the owner of the network, and the only one that may ask the engine."""
        yield from ("--network", "none", "--hostname", "tandem", "--add-host", "tandem:127.0.0.1", "--init")
        yield from ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--security-opt", "label=disable")
        yield from ("--volume", _WORK, "--volume", f"{self._engine.socket}:{SOCKET}")
        if sys.stderr.isatty():
            columns = shutil.get_terminal_size().columns
            yield from ("--tty", "--env", f"COLUMNS={columns}", "--env", "TERM=xterm-256color")


def _put(container: str, files: Mapping[str, str]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, text in files.items():
            entry, content = tarfile.TarInfo(path.lstrip("/")), text.encode()
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    docker("cp", "-", f"{container}:/", sent=packed.getvalue())


def _fetch(container: str, path: str, place: Path) -> bool:
    """Copy a directory out of a container, as this user's; False where there is none."""
    place.mkdir(parents=True, exist_ok=True)
    try:
        docker("cp", f"{container}:{path}/.", str(place), timeout_s=_CREATE_TIMEOUT_S)
    except DeployError as error:
        if any(words in str(error).lower() for words in _NOTHING_THERE):
            place.rmdir()
            return False
        raise
    return True
