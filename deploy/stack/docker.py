"""Runs `docker`, and `docker compose` on a project, and reads what they answer."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.errors import DeployError
from deploy.native.install.system import last_lines

_COMPOSE_MIN = (2, 20)  # `required: false` under depends_on
_QUICK_TIMEOUT_S = 30
_END_TIMEOUT_S = 10
_NO_COMPOSE = "Docker Compose 2.20 or newer is not installed"
_USUAL_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True)
class Project:
    """A Compose project: what it is called and which files describe it."""

    name: str
    files: tuple[Path, ...]

    def run(self, *arguments: str, timeout_s: float, broker: str = "rabbit") -> str:
        """Run a command of Compose on it and return what that printed; the files want to know a `broker`.

        Raises DeployError with its last lines when it fails or takes too long.
        """
        return _output_of(
            self._command(arguments),
            f"docker compose {' '.join(arguments)}",
            environment=_environment(broker),
            timeout_s=timeout_s,
        ).decode(errors="replace")

    def print(self, *arguments: str) -> int:
        """Let Compose print to our own output, for as long as it likes; returns its exit code."""
        return subprocess.run(self._command(arguments), env=_environment("rabbit"), check=False).returncode

    def containers(self) -> list[dict[str, Any]]:
        """The containers that run, as `docker compose ps` describes them: `Service`, `State`, `Health`, …"""
        return [row for row in self._rows() if row.get("State") in ("running", "restarting")]

    def last_words(self) -> str:
        """The last lines of the containers that failed: their logs go when they are taken down."""
        said = []
        for row in self._rows("--all"):
            if row.get("ExitCode") or row.get("State") == "restarting" or row.get("Health") == "unhealthy":
                command = ["docker", "logs", "--tail", "4", row["ID"]]
                done = subprocess.run(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                    timeout=_QUICK_TIMEOUT_S,
                )
                said.append(f"{row['Service']}: {done.stdout.strip()}")
        return "\n".join(said)

    def _rows(self, *options: str) -> list[dict[str, Any]]:
        command = ["--profile", "*", "ps", *options, "--format", "json"]
        text = self.run(*command, timeout_s=_QUICK_TIMEOUT_S).strip()
        # Compose prints an array up to 2.20, a line per container since.
        return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]

    def _command(self, arguments: Sequence[str]) -> list[str]:
        compose = _compose()
        if compose is None:
            raise DeployError(_NO_COMPOSE)
        files = [word for file in self.files for word in ("-f", str(file))]
        return [*compose, *files, "--project-name", self.name, *arguments]


@dataclass(frozen=True)
class Engine:
    """What a Docker engine says of itself. `socket` is the path on its machine by which containers reach it."""

    cpus: int
    name: str
    socket: str


def engine() -> Engine | None:
    """The engine that `docker` talks to; None where none answers."""
    told = _told("info", "--format", "{{json .}}")
    try:
        found = json.loads(told or "{}")
    except ValueError:
        return None
    if not found.get("NCPU"):  # what the client knows by itself it tells without an engine, too
        return None
    host = (_told("context", "inspect", "--format", "{{.Endpoints.docker.Host}}") or "").strip()
    system = found.get("OperatingSystem", "")
    name = f"Docker {found.get('ServerVersion', '')} on {system}, cgroup v{found.get('CgroupVersion', '1')}"
    return Engine(found["NCPU"], name, socket_within(host, system))


def socket_within(host: str, system: str, platform: str = sys.platform) -> str:
    """Where containers of an engine reach it that the client reaches at `host`: at the same path where both are on
    this machine; in a virtual machine or on another one, where an engine usually has it."""
    here = platform == "linux" and system != "Docker Desktop" and host.startswith("unix://")
    return host.removeprefix("unix://") if here else _USUAL_SOCKET


def docker(
    *arguments: str, timeout_s: float = _QUICK_TIMEOUT_S, told: Mapping[str, str] | None = None, sent: bytes = b""
) -> bytes:
    """Run a command of `docker` and return what it printed; it gets what is `told` as variables, and `sent`.

    Raises DeployError with its last lines when it fails or takes too long.
    """
    return _output_of(
        ["docker", *arguments],
        f"docker {arguments[0]}",
        environment={**os.environ, **(told or {})},
        timeout_s=timeout_s,
        sent=sent,
    )


def is_available() -> bool:
    """Whether an engine answers, with a Compose that is new enough for our files."""
    return shutil.which("docker") is not None and _compose() is not None and _engine_answers()


def pids_of(container: dict[str, Any]) -> list[int]:
    """The process id of a container's first process, as the engine names it."""
    command = ["docker", "inspect", "--format", "{{.State.Pid}}", container["ID"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_QUICK_TIMEOUT_S)
    return [int(done.stdout)] if done.returncode == 0 and done.stdout.strip().isdigit() else []


def _engine_answers() -> bool:
    return _told("info") is not None


def _compose() -> list[str] | None:
    """The command of a Compose that is new enough, or None."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            done = subprocess.run(
                [*command, "version", "--short"],
                capture_output=True,
                text=True,
                check=False,
                timeout=_QUICK_TIMEOUT_S,
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
        numbers = re.match(r"v?(\d+)\.(\d+)", done.stdout.strip())
        if done.returncode == 0 and numbers and (int(numbers[1]), int(numbers[2])) >= _COMPOSE_MIN:
            return command
    return None


def _environment(broker: str) -> dict[str, str]:
    """The caller's, in which the files find the settings, without what would change which files those are."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    grace_s = passed.pop("TANDEM_SHUTDOWN_GRACE_S", "")
    with suppress(ValueError):  # `up` has refused it; `down` and `ps` go on with the default
        if math.isfinite(float(grace_s)):
            passed["TANDEM_SHUTDOWN_GRACE_S"] = f"{float(grace_s):f}"  # a duration of Compose is no 1e1
    return {**passed, "TANDEM_BROKER": broker}


def _told(*arguments: str) -> str | None:
    """What a command of `docker` printed; None where it failed, or there is none."""
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=False, timeout=_QUICK_TIMEOUT_S
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _output_of(
    command: Sequence[str], title: str, *, environment: Mapping[str, str], timeout_s: float, sent: bytes = b""
) -> bytes:
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE if sent else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us: it must not end the command that cleans up after it
    ) as process:
        try:
            said, complaint = process.communicate(sent or None, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise DeployError(f"{title} took longer than {timeout_s:.0f} s") from error
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        raise DeployError(f"{title} failed:\n{last_lines(complaint.decode(errors='replace'), 12)}")
    return said


def _end(process: subprocess.Popen[bytes]) -> None:
    """With the plugin that it runs: that one would go on by itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_TIMEOUT_S)
