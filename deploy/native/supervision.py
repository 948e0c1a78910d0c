"""Supervisor: restarts what dies, rotates logs, and takes everything down with it.

One supervisord per instance. Programs come in groups; on shutdown supervisor stops the group with the highest
priority number first, so services leave while their servers still run.
"""

import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from deploy.birth import start_ticks
from deploy.errors import StartError
from deploy.native.environment import UMASK, of_children
from deploy.native.program import Program, group_config, main_config, script, script_name, shutdown_timeout_s
from deploy.native.site import Site, write_secret
from deploy.paths import REPOSITORY

INSTANCE_VARIABLE = "TANDEM_INSTANCE_ROOT"  # marks every process of ours, to find what got away
FORKS_VARIABLE = "TANDEM_FORK_SERVICES"  # 1 or 0, whatever the runtime was told
_SUPERVISORD, _FORKING = "supervisor.supervisord", "deploy.supervisord"
_START_TIMEOUT_S = 15.0


class Supervisor:
    """Talks to the supervisord of a site; every method may be called from any process of the same user."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._log_sizes: dict[str, int] = {}
        self._groups: dict[str, str] = {}

    # -- supervisord itself

    def pid(self) -> int | None:
        """The process id of the running supervisord, None when none runs."""
        try:
            pid = int(self._site.pid_file.read_text())
            command = psutil.Process(pid).cmdline()
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return pid if str(self._main_config) in command else None

    def launch(self, watched_parent: int | None = None, *, forks: bool = False) -> None:
        """Start supervisord unless it runs. With `watched_parent` it ends soon after that process has ended.

        With `forks` it is one that can fork services, and does so once `preload` has told it what to import.
        """
        if self.pid() is not None:
            return
        forks = {"1": True, "0": False}.get(os.environ.get(FORKS_VARIABLE, ""), forks)
        self._main_config.write_text(main_config(self._site, forks=forks), encoding="utf-8")
        for stale in (*self._site.programs.glob("group-*.conf"), *self._site.programs.glob("*.sh")):
            stale.unlink()
        self._site.control_socket.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", _FORKING if forks else _SUPERVISORD, "-c", str(self._main_config)],
            cwd=REPOSITORY if forks else self._site.programs,
            env={**of_children(), INSTANCE_VARIABLE: str(self._site.root)},
            umask=UMASK,
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
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).terminate()
            _await_end(pid, shutdown_timeout_s(self._site.programs))
        self._end_leftovers(family)
        self._site.pid_file.unlink(missing_ok=True)
        self._site.control_socket.unlink(missing_ok=True)

    def preload(self, modules: Sequence[str]) -> None:
        """Have a supervisord that can fork services import these; of another nothing is asked.

        It does nothing else meanwhile. An import that fails is in its log, and services are started as ever.
        """
        try:
            self._call("tandem.preload", list(modules))
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.UNKNOWN_METHOD:
                raise

    # -- programs

    def add_group(self, group: str, programs: Sequence[Program], priority: int) -> None:
        """Add a group of programs (replacing one of the same name); nothing in it is started yet."""
        self.remove_group(group)
        for program in programs:
            write_secret(self._site.programs / script_name(program), script(program))
        self._config_of(group).write_text(group_config(group, programs, priority))
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
        # All rows take both sides six times as long, and every wait asks twice a second.
        if name in self._groups and self.pid() is not None:
            try:
                return cast("dict[str, Any]", self._call("getProcessInfo", f"{self._groups[name]}:{name}"))
            except xmlrpc.client.Fault as fault:
                if fault.faultCode != Faults.BAD_NAME:
                    raise
        rows = {row["name"]: row for row in self.processes()}
        self._groups = {of: row["group"] for of, row in rows.items()}
        if name not in rows:
            raise KeyError(f"no process is called {name!r}")
        return rows[name]

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
            return getattr(proxy, method if "." in method else f"supervisor.{method}")(*arguments)
        finally:
            transport.close()

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
        born = start_ticks(parent)
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
        with suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait(5)
