"""Supervisor: restarts what dies, rotates logs, and takes everything down with it.

One supervisord per instance. Programs come in groups; on shutdown supervisor stops the group with the highest
priority number first, so services leave while their servers still run.
"""

import os
import re
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from deploy.errors import StartError
from deploy.native.install.system import is_root
from deploy.native.site import Site
from deploy.paths import REPOSITORY

INSTANCE_VARIABLE = "TANDEM_INSTANCE_ROOT"  # marks every process of ours, to find what got away
_LOG_BYTES_MAX = 10 * 1024 * 1024
_START_TIMEOUT_S = 15.0
_SHUTDOWN_MARGIN_S = 10.0  # for supervisord itself


@dataclass(frozen=True)
class Program:
    """A process under supervision.

    With `user`, root starts it as that user. `die_with_supervisor` asks the kernel to end it when supervisord
    is killed. `stop_whole_group` signals the children too, for a program whose first process passes nothing on.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: str = "TERM"
    stop_timeout_s: int = 20
    stop_whole_group: bool = False
    autorestart: bool = True
    die_with_supervisor: str | None = "TERM"


class Supervisor:
    """Talks to the supervisord of a site; every method may be called from any process of the same user."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._log_sizes: dict[str, int] = {}

    # -- supervisord itself

    def pid(self) -> int | None:
        """The process id of the running supervisord, None when none runs."""
        try:
            pid = int(self._site.pid_file.read_text())
            command = psutil.Process(pid).cmdline()
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return pid if str(self._main_config) in command else None

    def launch(self, watched_parent: int | None = None) -> None:
        """Start supervisord unless it runs. With `watched_parent` it ends soon after that process has ended."""
        if self.pid() is not None:
            return
        self._write_main_config()
        for stale in self._site.programs.glob("group-*.conf"):
            stale.unlink()
        self._site.control_socket.unlink(missing_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")}
        environment[INSTANCE_VARIABLE] = str(self._site.root)
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._main_config)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StartError(f"supervisord did not start: {done.stderr.strip() or done.stdout.strip()}")
        self._await_answer()
        if watched_parent is not None:
            self._watch(watched_parent)

    def shutdown(self) -> None:
        """Stop every program, then supervisord; returns when no process of the instance is left."""
        pid = self.pid()
        family = _descendants(pid) if pid else []
        if pid is not None:
            try:
                self._call("shutdown")
            except OSError:
                psutil.Process(pid).terminate()
            _await_end(pid, shutdown_timeout_s(self._site.programs))
        self._end_leftovers(family)
        self._site.pid_file.unlink(missing_ok=True)
        self._site.control_socket.unlink(missing_ok=True)

    # -- programs

    def add_group(self, group: str, programs: Sequence[Program], priority: int) -> None:
        """Add a group of programs (replacing one of the same name); nothing in it is started yet."""
        self.remove_group(group)
        self._config_of(group).write_text(group_config(group, programs, priority, self._site.logs))
        self._call("reloadConfig")
        self._call("addProcessGroup", group)

    def remove_group(self, group: str) -> None:
        """Stop a group's programs and forget it; nothing happens when there is none."""
        if group in {row["group"] for row in self.processes()}:
            self._call("stopProcessGroup", group)
            self._call("removeProcessGroup", group)
        self._config_of(group).unlink(missing_ok=True)

    def start(self, name: str) -> None:
        """Start a program; returns at once."""
        log = self._site.logs / f"{name}.log"
        self._log_sizes[name] = log.stat().st_size if log.exists() else 0
        try:
            self._call("startProcess", self._full_name(name), False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in (Faults.ALREADY_STARTED,):
                raise StartError(f"{name} could not be started: {fault.faultString}") from fault

    def log_size_at_start(self, name: str) -> int:
        """How long the program's log was when this object last started it: what follows is of this run."""
        return self._log_sizes.get(name, 0)

    def stop(self, name: str, *, wait: bool = True) -> None:
        """Stop a program and, unless told otherwise, wait until it has ended."""
        try:
            self._call("stopProcess", self._full_name(name), wait)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise

    def processes(self) -> list[dict[str, Any]]:
        """Supervisor's rows (`name`, `group`, `statename`, `pid`, `spawnerr`, …); empty when it does not run."""
        if self.pid() is None:
            return []
        return cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))

    def process(self, name: str) -> dict[str, Any]:
        """Supervisor's row for one program. Raises KeyError when there is none."""
        for row in self.processes():
            if row["name"] == name:
                return row
        raise KeyError(f"no process is called {name!r}")

    # -- inside

    @property
    def _main_config(self) -> Path:
        return self._site.programs / "supervisord.conf"

    def _config_of(self, group: str) -> Path:
        return self._site.programs / f"group-{group}.conf"

    def _full_name(self, name: str) -> str:
        return f"{self.process(name)['group']}:{name}"

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._site.control_socket}")
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        finally:
            transport.close()

    def _write_main_config(self) -> None:
        site = self._site
        lines = [
            "[unix_http_server]",
            f"file = {_plain(str(site.control_socket))}",
            "chmod = 0700",
            "[supervisord]",
            f"logfile = {_plain(str(site.logs / 'supervisord.log'))}",
            f"logfile_maxbytes = {_LOG_BYTES_MAX}",
            "logfile_backups = 1",
            f"pidfile = {_plain(str(site.pid_file))}",
            f"identifier = tandem-{site.fingerprint}",
            f"directory = {_plain(str(REPOSITORY))}",
            "minfds = 1024",
            *(["user = root"] if is_root() else []),
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            "[include]",
            "files = group-*.conf",
        ]
        self._main_config.write_text("\n".join(lines) + "\n")

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                self._call("getState")
            except (OSError, xmlrpc.client.Error):
                time.sleep(0.05)
            else:
                return
        raise StartError(f"supervisord did not answer within {_START_TIMEOUT_S:.0f} s")

    def _watch(self, parent: int) -> None:
        pid = self.pid()
        born = psutil.Process(parent).create_time()
        command = [sys.executable, "-m", "deploy.watch", str(parent), str(born), str(pid)]
        # The watch must outlive every group, so it has the lowest number.
        self.add_group("watch", [Program("watch", command)], priority=0)
        self.start("watch")

    def _end_leftovers(self, family: Sequence[psutil.Process]) -> None:
        """Kill, by id, what survived: children that supervisord left, and whatever carries our mark."""
        marked = [process for process in psutil.process_iter() if self._is_ours(process)]
        left = [process for process in {*family, *marked} if process.is_running()]
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=10)

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            return process.environ().get(INSTANCE_VARIABLE) == str(self._site.root)
        except (psutil.Error, OSError):
            return False


def group_config(group: str, programs: Sequence[Program], priority: int, logs: Path) -> str:
    """The section of supervisor's configuration for a group.

    Raises StartError for an environment value that its syntax cannot carry.
    """
    names = ",".join(program.name for program in programs)
    sections = [f"[group:{group}]\nprograms = {names}\npriority = {priority}"]
    for program in programs:
        command = list(program.command)
        if program.die_with_supervisor:
            command = ["setpriv", "--pdeathsig", program.die_with_supervisor, "--", *command]
        lines = [
            f"[program:{program.name}]",
            f"command = {_plain(shlex.join(command))}",
            "process_name = %(program_name)s",
            "autostart = false",
            f"autorestart = {'true' if program.autorestart else 'false'}",
            "startsecs = 1",
            "startretries = 20",
            f"stopsignal = {program.stop_signal}",
            f"stopwaitsecs = {program.stop_timeout_s}",
            f"stopasgroup = {'true' if program.stop_whole_group else 'false'}",
            "killasgroup = true",
            "redirect_stderr = true",
            f"stdout_logfile = {_plain(str(logs / (program.name + '.log')))}",
            f"stdout_logfile_maxbytes = {_LOG_BYTES_MAX}",
            "stdout_logfile_backups = 2",
        ]
        if program.user and is_root():
            lines.append(f"user = {program.user}")
        if program.environment:
            lines.append(f"environment = {_environment(program.environment)}")
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


def shutdown_timeout_s(programs: Path) -> float:
    """How long supervisord may take to end what the `group_config` files in `programs` describe.

    It stops one group after the other, the programs of a group at the same time. Cut short, it would leave servers
    to be killed while services still settle what they hold.
    """
    total_s = _SHUTDOWN_MARGIN_S
    for file in programs.glob("group-*.conf"):
        limits = re.findall(r"^stopwaitsecs = (\d+)$", file.read_text(), re.MULTILINE)
        total_s += max(map(int, limits), default=0)
    return total_s


def _environment(values: Mapping[str, str]) -> str:
    pairs = []
    for key, value in values.items():
        quote = '"' if '"' not in value else "'"
        # Supervisor's own syntax has no escapes; refuse rather than pass on something else than was asked.
        if quote in value or "\n" in value or " ;" in value or " #" in value:
            raise StartError(f"the value of {key} holds characters that supervisor cannot pass on: {value!r}")
        pairs.append(f"{key}={quote}{_plain(value)}{quote}")
    return ",".join(pairs)


def _plain(text: str) -> str:
    return text.replace("%", "%%")


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _await_end(pid: int, timeout_s: float) -> None:
    try:
        process = psutil.Process(pid)
        process.wait(timeout_s)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(5)
