"""What the servers run on: the versions of Java and Erlang with their flags, and how the data's directories are
mounted."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from deploy.native import Runtime
from deploy.native.environment import of_children
from deploy.topology import ServerName

_BEAM, _JAVA = "beam.smp", "java"
_FLAG = re.compile(r"^\s*\S+\s+(\w+)\s*:?=\s*(.*?)\s+\{[^}]*\}\s+\{([^}]*)\}\s*$")
_BUILD = re.compile(r"\(build ([^),]+)")
_CLASS_PATHS = frozenset({"-cp", "-classpath", "--class-path"})
_PRINTED = "PrintFlagsFinal"
_TIMEOUT_S = 30.0


def runtimes(runtime: Runtime) -> dict[str, Any]:
    """Of each broker that the run started: the virtual machine's version, and every flag of it that is no default.

    Empty for a broker whose processes cannot be looked at.
    """
    found: dict[str, Any] = {}
    if beam := _process(runtime, "rabbit", _BEAM):
        found["rabbit"] = _erlang(*beam)
    if java := _process(runtime, "kafka", _JAVA):
        found["kafka"] = _jvm(*java)
    return found


def mounts(directories: dict[str, Path]) -> dict[str, str]:
    """The file system under each directory, with its mount options."""
    known = [(Path(each.mountpoint), f"{each.fstype} ({each.opts})") for each in psutil.disk_partitions(all=True)]
    return {name: mounted_on(place.resolve(), known) for name, place in directories.items()}


def data_directories(runtime: Runtime, own: Collection[str]) -> dict[str, Path]:
    """Where each server that the run started keeps its data."""
    data = runtime.root / "data"
    return {name: data / name for name in runtime.servers if name not in own and (data / name).exists()}


def mounted_on(place: Path, known: Iterable[tuple[Path, str]]) -> str:
    """What is mounted nearest above a place; of two at one point, the later one covers the earlier."""
    above = [(len(point.parts), said) for point, said in known if place.is_relative_to(point)]
    nearest = max((depth for depth, _ in above), default=None)
    return next((said for depth, said in reversed(above) if depth == nearest), "unknown")


def erlang_flags(command: Sequence[str]) -> str:
    """The flags of the emulator, which end at the first `--`."""
    flags = list(command[1:])
    return " ".join(flags[: flags.index("--")] if "--" in flags else flags)


def jvm_options(command: Sequence[str]) -> list[str]:
    """The options of a command line that change how the machine runs: neither where files are, nor what is run."""
    options: list[str] = []
    words = iter(command[1:])
    for word in words:
        if word in _CLASS_PATHS:
            next(words, None)
        elif not word.startswith("-"):
            break  # the class to run
        elif word.startswith("-X") and "/" not in word:
            options.append(word)
    return options


def jvm_flags(printed: str) -> dict[str, str]:
    """What `-XX:+PrintFlagsFinal` printed: the other flags that are no defaults, with who set them."""
    rows = (_FLAG.match(line) for line in printed.splitlines())
    set_by = {row[1]: f"{row[2]} ({row[3]})" for row in rows if row and row[3] != "default"}
    set_by.pop(_PRINTED, None)
    return set_by


def _process(runtime: Runtime, server: ServerName, program: str) -> tuple[int, list[str]] | None:
    """The process of a server's first node that runs a program, with its command line."""
    if server not in runtime.servers:
        return None
    for pid in runtime.processes.pids(server):
        with suppress(psutil.Error):
            command = psutil.Process(pid).cmdline()
            if command and Path(command[0]).name == program:
                return pid, command
    return None


def _erlang(pid: int, command: Sequence[str]) -> dict[str, str]:
    return {"version": f"Erlang/OTP {_otp_version(pid, command)}", "flags": erlang_flags(command)}


def _otp_version(pid: int, command: Sequence[str]) -> str:
    """As the file of its release says, in whatever root the process has; else that of the emulator."""
    emulator = next((part for part in Path(command[0]).parts if part.startswith("erts-")), "of an unknown version")
    if "-root" not in command:
        return emulator
    releases = Path(f"/proc/{pid}/root/{command[command.index('-root') + 1]}/releases")
    with suppress(OSError):
        return next((path.read_text().strip() for path in sorted(releases.glob("*/OTP_VERSION"))), emulator)
    return emulator


def _jvm(_pid: int, command: Sequence[str]) -> dict[str, Any]:
    """The same Java, asked with the same options."""
    asked = [command[0], *jvm_options(command), f"-XX:+{_PRINTED}", "-version"]
    try:
        done = subprocess.run(
            asked, env=of_children(), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"version": f"unknown: {error}", "options": jvm_options(command)}
    build = _BUILD.search(done.stderr)
    return {
        "version": f"Java {build[1]}" if build else "unknown",
        "options": jvm_options(command),
        "flags": jvm_flags(done.stdout),
    }
