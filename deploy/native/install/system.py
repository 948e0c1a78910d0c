"""The operating system's side of installing: running commands as root, apt packages, who owns what."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.errors import InstallError
from deploy.native.environment import SYSTEM_PATH, UMASK, of_children, of_installers, through_sudo
from deploy.native.install.cache import cache_root, locked

_APT_TIMEOUT_S = 900
_TRIAL_TIMEOUT_S = 30


def find_program(name: str) -> Path | None:
    """Where a program is, also in the directories of root."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    return Path(found) if found else None


def require_program(name: str, package: str) -> Path:
    """Where a program is that `package` should have brought.

    Raises InstallError naming both.
    """
    found = find_program(name)
    if found is None:
        raise InstallError(f"the program {name} is missing although the package {package} is installed")
    return found


def is_root() -> bool:
    """Whether this process may do everything itself."""
    return os.geteuid() == 0


def as_root(command: Sequence[str]) -> list[str]:
    """The command, with sudo in front when this process is not root.

    Raises InstallError when it would be needed and there is none.
    """
    if is_root():
        return list(command)
    sudo = find_program("sudo")
    if sudo is None:
        raise InstallError(f"{command[0]} needs root, and there is no sudo on this machine")
    # Asking for a password is right for a person at a terminal and would hang anybody else.
    return [str(sudo), *([] if os.isatty(0) else ["-n"]), "env", *through_sudo(), *command]


def namespaces() -> list[str]:
    """What to put before a command that mounts and changes root: mounts and processes end with it.

    A normal user gets a user namespace in which it counts as root, so this never needs sudo.
    """
    as_user = [] if is_root() else ["--user", "--map-root-user"]
    return ["unshare", *as_user, "--mount", "--pid", "--fork", "--kill-child"]


def require_namespaces(purpose: str) -> None:
    """Raise InstallError, naming `purpose`, unless this machine lets us do what `namespaces` is for."""
    done = subprocess.run(
        [*namespaces(), "mount", "-t", "proc", "proc", "/proc"],
        env=of_children(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        errors="replace",
        timeout=_TRIAL_TIMEOUT_S,
    )
    if done.returncode != 0:
        kind = "mount" if is_root() else "unprivileged user"
        remedy = "" if is_root() else "; allow them or run this as root"
        reason = (done.stdout.strip().splitlines() or ["no reason given"])[0]
        raise InstallError(f"{purpose} needs {kind} namespaces, and this machine refuses them ({reason}){remedy}")


def run(command: Sequence[str], *, what: str, timeout_s: float, log: Path | None = None) -> str:
    """Run a command to its end and return what it printed; also written to `log` when given.

    Raises InstallError: `what`, the reason, and the last lines it printed.
    """
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=of_installers(),
            umask=UMASK,
            timeout=timeout_s,
            check=False,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise InstallError(f"{what} failed: there is no program {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"{what} took longer than {timeout_s:.0f} s and was given up") from error
    if log is not None:
        log.write_text(done.stdout)
    if done.returncode != 0:
        raise InstallError(f"{what} failed with exit code {done.returncode}:\n{last_lines(done.stdout)}")
    return done.stdout


def last_lines(text: str, count: int = 8) -> str:
    """The last lines that say something, indented."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-count:])


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages; services that this starts are stopped again, others are left alone.

    Raises InstallError naming the packages.
    """
    names = " ".join(packages)
    if find_program("apt-get") is None:
        raise InstallError(f"apt-get is missing, so these packages cannot be installed: {names}")
    with locked("apt"):
        clusters = _postgres_clusters()
        # A dead third-party source must not stop us: what matters is whether the install finds its packages.
        updated = _apt_get("update")
        installed = _apt_get("install", "-y", "--no-install-recommends", *packages)
        if installed.returncode != 0:
            log = cache_root() / "apt.log"
            log.write_text(updated.stdout + installed.stdout)
            reason = _complaint(installed.stdout)
            raise InstallError(f"apt-get could not install {names}: {reason} (all it said is in {log})")
        for version, cluster in _postgres_clusters() - clusters:
            _retire_cluster(version, cluster)
        for service in {"redis-server", "rabbitmq-server"} & set(packages):
            _retire_service(service)


def _apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments]
    try:
        return subprocess.run(
            as_root(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=of_installers(),
            umask=UMASK,
            check=False,
            text=True,
            errors="replace",
            timeout=_APT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        took = f"took longer than {_APT_TIMEOUT_S} s and was given up"
        raise InstallError(f"apt-get {' '.join(arguments)} {took}") from error


def _complaint(output: str) -> str:
    """apt's first error; where apt did not get to run, the last line, in which sudo says why it refused."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    return (errors or lines[-1:] or ["it gave no reason"])[0]


def package_version(package: str) -> str | None:
    """The installed version of a Debian package without its epoch, None when it is not installed."""
    command = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package]
    try:
        done = _ask(command)
    except FileNotFoundError:
        return None
    status, _, version = done.stdout.strip().partition(" ")
    return version.split(":")[-1] if status == "installed" else None


def package_candidate(package: str) -> str | None:
    """The version that apt would install, without its epoch; None when apt knows none."""
    try:
        done = _ask(["apt-cache", "policy", package])
    except FileNotFoundError:
        return None
    for line in done.stdout.splitlines():
        label, _, version = line.strip().partition(" ")
        if label == "Candidate:" and version != "(none)":
            return version.split(":")[-1]
    return None


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What a tool says, in the words that we look for: those of no language."""
    return subprocess.run(command, env=of_children(), capture_output=True, text=True, check=False)


def _postgres_clusters() -> set[tuple[str, str]]:
    """(version, name) of the clusters that Debian's tools know and that are running."""
    lister = find_program("pg_lsclusters")
    if lister is None:
        return set()
    done = _ask([str(lister), "--no-header"])
    rows = [line.split() for line in done.stdout.splitlines()]
    return {(row[0], row[1]) for row in rows if len(row) > 3 and row[3].startswith("online")}


def _retire_cluster(version: str, cluster: str) -> None:
    """Stop the cluster that installing the package made and started; nobody asked for it."""
    subprocess.run(
        as_root(["pg_ctlcluster", version, cluster, "stop"]),
        env=of_children(),
        capture_output=True,
        check=False,
        timeout=60,
    )


def _retire_service(service: str) -> None:
    """Stop a system service whose package we just installed for its program only."""
    if Path("/run/systemd/system").is_dir():
        command = ["systemctl", "disable", "--now", service]
    else:
        command = ["service", service, "stop"]
    subprocess.run(as_root(command), env=of_children(), capture_output=True, check=False, timeout=60)
