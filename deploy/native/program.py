"""A process under supervision, and how supervisor is told of it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.errors import StartError
from deploy.native.install.system import is_root
from deploy.native.site import Site
from deploy.paths import REPOSITORY

_LOG_BYTES_MAX = 10 * 1024 * 1024
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


def main_config(site: Site) -> str:
    """Supervisor's configuration of itself; it includes that of the groups."""
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
    return "\n".join(lines) + "\n"


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
