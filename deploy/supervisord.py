"""A supervisord that forks the services from itself, where each would import everything again.

`python -m deploy.supervisord -c CONFIGURATION`. Twelve processes import nearly the same, 0.75 s of a core each.
Told to (`tandem.preload`, over supervisor's own socket), this one imports it once; from then on a program that is
a module of ours, run by this Python, is a fork, which goes on as `python -m MODULE` would: with an environment, a
directory, signals and a title of its own. All else is started as ever, and so is everything when an import failed.

It has one thread, and nothing that is preloaded may start another or open a connection.
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
from typing import Any, NoReturn

import setproctitle
from supervisor import supervisord
from supervisor.options import ServerOptions

from deploy.paths import REPOSITORY

_PR_SET_PDEATHSIG = 1
_READ_BY_THE_LOADER = ("LD_", "GLIBC_", "MALLOC_")
"""Variables that count when a program is started, and not when it is forked."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a program's script comes to: a module that this Python is to run."""

    directory: str
    environment: Mapping[str, str]
    module: str
    arguments: tuple[str, ...]


def read_script(text: str) -> Start | None:
    """What the script of a program starts; None when that is no fork of ours: another program, another Python,
    another checkout, one of the runtime's own, which needs little, or one with a library of its own preloaded.

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
    if module.startswith("deploy.") or words[2] != str(REPOSITORY):
        return None
    exports = [word for before, word in pairwise(words[:last]) if before == "export"]
    environment = dict(export.split("=", 1) for export in exports)
    if any(name.startswith(_READ_BY_THE_LOADER) for name in environment):
        return None
    return Start(words[2], environment, module, tuple(arguments))


def preload(modules: Sequence[str]) -> None:
    """Import what services need, so that forks of this process share it. Raises what an import raises."""
    if all(module in sys.modules for module in modules):
        return
    try:
        for module in modules:
            gc.disable()  # nothing of it is garbage; importing a service turns it on again
            importlib.import_module(module)
    finally:
        gc.enable()
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
    sys.modules.pop(module, None)  # as a preloaded one it has another name
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  what Python does with what nobody caught
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  what Python does at its end, in its order
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    sys.stderr.flush()
    return code


class Preloading:
    """The method `tandem.preload`, which supervisor offers beside its own."""

    def __init__(self, supervised: Any) -> None:
        self._options: ForkingOptions = supervised.options

    def preload(self, modules: list[str]) -> bool:
        """Import these modules; whether services are forked from now on."""
        try:
            preload(modules)
        except Exception as error:  # noqa: BLE001  importing runs anybody's code; who needs it will say it again
            self._options.logger.warn(f"services are not forked: {type(error).__name__}: {error}")
            self._options.forks = False
        else:
            self._options.forks = True
        return self._options.forks


class ForkingOptions(ServerOptions):  # type: ignore[misc]  # supervisor has no types
    """What supervisor asks of the system; here it forks what `read_script` understands."""

    forks = False
    """Once everything is imported."""

    def execve(self, filename: str, argv: list[str], env: dict[str, str]) -> None:
        """Called in the child, last of all; never returns."""
        start = read_script(Path(argv[1]).read_text()) if self.forks and argv[:1] == ["/bin/sh"] else None
        if start is None:
            os.execve(filename, argv, env)  # noqa: S606
        else:
            # Beside the arguments there is the environment, by which what got away is found: it stays as it is.
            os.environ["SPT_NOENV"] = "1"
            setproctitle.setproctitle(shlex.join([sys.executable, "-m", start.module, *start.arguments]))
            setproctitle.setthreadtitle(Path(sys.executable).name)  # which is what `top` and `pgrep` go by
            become(start, env)


def main(arguments: Sequence[str]) -> None:
    """Be supervisord, in the directory of its configuration. Ends the process itself."""
    os.chdir(Path(arguments[1]).parent)
    options = ForkingOptions()
    options.realize(list(arguments), doc=supervisord.__doc__)
    options.first = True
    options.test = False
    supervisord.go(options)


if __name__ == "__main__":
    main(sys.argv[1:])
