"""A process under supervision, and how supervisor is told of it.

Supervisor's configuration cannot say every value: it strips quotes, takes what follows " ;" for a comment, and
expands percent signs. So it holds names only. What is run, where and with which environment stands in a script
beside it, one for each program, in the shell's syntax, which can say everything.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.native.environment import UMASK
from deploy.native.install.system import is_root
from deploy.native.site import Site
from deploy.paths import REPOSITORY

_LOG_BYTES_MAX = 10 * 1024 * 1024
_SHUTDOWN_MARGIN_S = 10.0  # for supervisord itself
_PRELOADING = ("[rpcinterface:tandem]", "supervisor.rpcinterface_factory = deploy.supervisord:Preloading")


@dataclass(frozen=True)
class Program:
    """A process under supervision.

    It runs in `directory`, with `environment` on top of the runtime's own. With `user`, root starts it as that
    user. `die_with_supervisor` asks the kernel to end it when supervisord is killed. `stop_whole_group` signals
    the children too, for a program whose first process passes nothing on.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = REPOSITORY
    user: str | None = None
    stop_signal: str = "TERM"
    stop_timeout_s: int = 20
    stop_whole_group: bool = False
    autorestart: bool = True
    die_with_supervisor: str | None = "TERM"


def main_config(site: Site, *, forks: bool = False) -> str:
    """Supervisor's configuration of itself; it includes that of the groups. It runs in their directory.

    With `forks` it is that of deploy/supervisord.py.
    """
    socket = site.control_socket
    lines = [
        "[unix_http_server]",
        f"file = {_plain('../' + socket.name if socket.parent == site.root else str(socket))}",
        "chmod = 0700",
        "[supervisord]",
        f"logfile = ../{site.logs.name}/supervisord.log",
        f"logfile_maxbytes = {_LOG_BYTES_MAX}",
        "logfile_backups = 1",
        f"pidfile = ../{site.pid_file.name}",
        f"identifier = tandem-{site.fingerprint}",
        f"umask = {UMASK:03o}",
        "minfds = 1024",
        *(["user = root"] if is_root() else []),
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        *(_PRELOADING if forks else ()),
        "[include]",
        f"files = {_pattern(site.programs)}/group-*.conf",
    ]
    return "\n".join(lines) + "\n"


def group_config(group: str, programs: Sequence[Program], priority: int) -> str:
    """The section of supervisor's configuration for a group; each program's script must lie beside it."""
    names = ",".join(program.name for program in programs)
    sections = [f"[group:{group}]\nprograms = {names}\npriority = {priority}"]
    for program in programs:
        lines = [
            f"[program:{program.name}]",
            f"command = /bin/sh {script_name(program)}",
            "process_name = %(program_name)s",
            "autostart = false",
            f"autorestart = {'true' if program.autorestart else 'false'}",
            # What ends sooner has not started, and is started again: also where nothing is restarted that ends.
            f"startsecs = {1 if program.autorestart else 0}",
            "startretries = 20",
            f"stopsignal = {program.stop_signal}",
            f"stopwaitsecs = {program.stop_timeout_s}",
            f"stopasgroup = {'true' if program.stop_whole_group else 'false'}",
            "killasgroup = true",
            "redirect_stderr = true",
            f"stdout_logfile = ../logs/{program.name}.log",
            f"stdout_logfile_maxbytes = {_LOG_BYTES_MAX}",
            "stdout_logfile_backups = 2",
        ]
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


def script_name(program: Program) -> str:
    """The file of `script`."""
    return f"{program.name}.sh"


def script(program: Program) -> str:
    """A shell script that becomes the program. It holds passwords: nobody else may read it."""
    command = list(program.command)
    options = ["--pdeathsig", program.die_with_supervisor] if program.die_with_supervisor else []
    if program.user and is_root():
        # Not by supervisor, since that user may not read this file.
        options += ["--reuid", program.user, "--regid", program.user, "--init-groups"]
    if options:
        command = ["setpriv", *options, "--", *command]
    settings = [f"export {name}={shlex.quote(value)}" for name, value in program.environment.items()]
    lines = [f"cd -- {shlex.quote(str(program.directory))} || exit 1", *settings, f"exec {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


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


def _plain(text: str) -> str:
    return text.replace("%", "%%")


def _pattern(directory: Path) -> str:
    """A glob for the directory; supervisor splits the value at blanks, and knows no way to write one."""
    return re.sub(r"[^\w/.-]", "?", str(directory))
