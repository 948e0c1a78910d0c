"""A fork where a start would be: Python processes of ours that need not import everything again.

A service spends 1.5 seconds of a core on imports, and the suite starts some 200. `become` turns a forked process
that has imported `PRELOADED` into what `python -m MODULE` would have been. Run as a script this file is a
supervisord (`python tests/preloaded.py -c CONFIGURATION`) that does so for services; all else it starts as ever.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import runpy
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parents[1]
SUPERVISORD = Path(__file__).resolve()
PRELOADED = (
    *(f"services.{service}.handlers" for service in ("order", "user", "notification", "jobs", "report", "fraud")),
    *(
        f"services.{service}.http"
        for service in ("order", "user", "notification", "dead_letter", "wallet", "jobs", "report", "fraud")
    ),
    "services.dead_letter.background",
    "shared.broker.kafka",
    "shared.broker.rabbit",
    "shared.consuming",
    "shared.process",
    "shared.publishing",
    "opentelemetry.exporter.otlp.json.file",
    "opentelemetry.exporter.prometheus",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
)
"""Imported before the first fork. What is missing here costs time only: the process imports it itself."""
OURS = ("services.", "examples.", "experiment.", "faults.", "tests.")
"""Where the modules are that run as, or in place of, a service's process: each builds on what is preloaded."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Start:
    """What a program's script comes to: a module that this Python is to run."""

    directory: str
    environment: Mapping[str, str]
    module: str
    arguments: tuple[str, ...]


def read_script(text: str) -> Start | None:
    """What the script of a program starts; None when that is no service of ours with this Python.

    The script is the runtime's: `cd -- DIRECTORY || exit 1`, exports, `exec setpriv --pdeathsig TERM -- …`.
    """
    words = shlex.split(text)
    if "exec" not in words or words[:2] != ["cd", "--"]:
        return None
    last = len(words) - 1 - words[::-1].index("exec")
    prefix = ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m"]
    if words[last + 1 : last + 1 + len(prefix)] != prefix:
        return None
    module, *arguments = words[last + 1 + len(prefix) :]
    if not module.startswith(OURS) or words[2] != str(REPOSITORY):
        return None
    exports = [word for before, word in pairwise(words[:last]) if before == "export"]
    environment = dict(export.split("=", 1) for export in exports)
    return Start(words[2], environment, module, tuple(arguments))


def preload() -> None:
    """Import what services need, so that forks of this process share it."""
    for module in PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a fork's garbage collector leaves these pages alone, and shared


def become(start: Start, environment: Mapping[str, str]) -> NoReturn:
    """Go on as `python -m MODULE` in a process that has just been forked, and end it."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.environ.clear()
    os.environ.update({**environment, **start.environment})
    os.chdir(start.directory)
    sys.argv = [start.module, *start.arguments]
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os._exit(_run(start.module))


def _run(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  what Python does with what nobody caught
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def supervise(arguments: Sequence[str]) -> None:
    """Be a supervisord that forks services. Never returns by itself."""
    from supervisor import supervisord
    from supervisor.options import ServerOptions

    class ForkingOptions(ServerOptions):  # type: ignore[misc]  # supervisor has no types
        preloaded = False

        def fork(self) -> int:
            """Called by the parent before each start; the scripts of the services are there before the first."""
            if not self.preloaded and any(read_script(path.read_text()) for path in Path.cwd().glob("*.sh")):
                preload()
                self.preloaded = True
            return os.fork()

        def execve(self, filename: str, argv: list[str], env: dict[str, str]) -> None:
            start = read_script(Path(argv[1]).read_text()) if argv[:1] == ["/bin/sh"] else None
            if start is None:
                os.execve(filename, argv, env)
            else:
                become(start, env)

    options = ForkingOptions()
    options.realize(arguments, doc=supervisord.__doc__)
    options.first = True
    options.test = False
    supervisord.go(options)


if __name__ == "__main__":
    sys.path[:] = [str(REPOSITORY), *(path for path in sys.path if path != str(REPOSITORY / "tests"))]
    supervise(sys.argv[1:])
