"""The directory of one instance: everything that the instance writes lies below its root."""

import hashlib
import json
import os
import pwd
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deploy.errors import DeployError
from deploy.native.install.system import is_root
from deploy.native.ports import Ports
from deploy.paths import make_directory

# Unix socket addresses end at 107 bytes; supervisor adds a suffix while it creates its own.
_SOCKET_PATH_MAX = 90
_SECRET = 0o700

Durability = Literal["usual", "fsync", "pagecache"]
"""When a broker confirms: as each does by itself, once the event is on the disk, or once the kernel has it."""


@dataclass(frozen=True)
class Site:
    """Where an instance lives, on which ports, its password (the same for all its servers), and when its brokers
    confirm."""

    root: Path
    ports: Ports
    password: str = field(repr=False)
    durability: Durability = "usual"

    @classmethod
    def open(
        cls, root: Path, ports: Ports, durability: Durability = "usual", password: str | None = None
    ) -> "Site":
        """Make the root, or come back to it: an existing instance keeps its password, since its data has it.

        A new one has the `password` of servers that are there already, or else one of its own.
        """
        root = root.resolve()
        if not root.exists() or read_state(root):
            make_directory(root)
        kept = read_state(root)
        return cls(root, ports, str(kept.get("password") or password or secrets.token_hex(16)), durability)

    @property
    def logs(self) -> Path:
        """One rotating log per process."""
        return make_directory(self.root / "logs")

    @property
    def telemetry(self) -> Path:
        """OTLP JSON lines, a file per process."""
        return make_directory(self.root / "telemetry")

    @property
    def programs(self) -> Path:
        """The generated configuration of supervisor; passwords are in it."""
        return _own(self.root / "supervisor", _SECRET)

    @property
    def control_socket(self) -> Path:
        """Supervisor's socket: in the root, or in the temporary directory where that path is too long."""
        place = self.root / "supervisor.sock"
        if len(os.fsencode(place)) <= _SOCKET_PATH_MAX:
            return place
        return _own(Path(tempfile.gettempdir()) / f"tandem-{self.fingerprint}", _SECRET) / "supervisor.sock"

    @property
    def pid_file(self) -> Path:
        """Supervisor's process id while it runs."""
        return self.root / "supervisord.pid"

    @property
    def fingerprint(self) -> str:
        """Tells instances apart where names must be short."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:10]

    def data(self, server: str, owner: str | None = None) -> Path:
        """The data directory of a server, made when missing; with `owner` that user can reach and write it."""
        place = make_directory(self.root / "data") / server
        if owner is None or not is_root():
            return make_directory(place)
        if not place.exists():
            if not _is_passable(place.parent):
                place.unlink(missing_ok=True)
                place.symlink_to(make_directory(self._elsewhere() / server))
            make_directory(place)
        elif place.is_symlink():
            self._elsewhere()  # an earlier version made it under the caller's umask
        real = place.resolve()
        if not _is_passable(real.parent):
            raise DeployError(
                f"{real} cannot be reached by the user {owner}: a directory above it is closed to others"
            )
        account = pwd.getpwnam(owner)
        os.chown(real, account.pw_uid, account.pw_gid)
        return real

    def remove(self) -> None:
        """Delete everything that the instance wrote."""
        for link in (self.root / "data").glob("*"):
            if link.is_symlink():
                shutil.rmtree(link.resolve(), ignore_errors=True)
        shutil.rmtree(Path("/var/tmp") / f"tandem-{self.fingerprint}", ignore_errors=True)  # noqa: S108
        shutil.rmtree(self.control_socket.parent if self.control_socket.parent != self.root else self.root)
        shutil.rmtree(self.root, ignore_errors=True)

    def _elsewhere(self) -> Path:
        # Only for data that another user must reach and a root that it cannot, such as a clone under /root.
        return _own(Path("/var/tmp") / f"tandem-{self.fingerprint}")  # noqa: S108


def read_state(root: Path) -> dict[str, Any]:
    """What `write_state` wrote; empty when there is no instance."""
    try:
        state: dict[str, Any] = json.loads((root / "instance.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return state


def write_state(root: Path, state: dict[str, Any]) -> None:
    """Replace the instance's description; the password is in it."""
    write_secret(root / "instance.json", json.dumps(state, indent=2))


def write_secret(place: Path, text: str) -> None:
    """Replace a file by one that its owner alone may read, whatever the umask is."""
    fresh = place.with_name(f"{place.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    fresh.rename(place)


def _own(place: Path, mode: int = 0o755) -> Path:
    """A directory of this user where everybody may make one. Raises DeployError when it is somebody else's."""
    try:
        place.mkdir()
    except FileExistsError:
        if place.is_symlink() or place.stat().st_uid != os.geteuid():
            raise DeployError(f"{place} belongs to another user") from None
    place.chmod(mode)
    return place


def _is_passable(place: Path) -> bool:
    """Whether every user can go through it."""
    return all(directory.stat().st_mode & 0o001 for directory in (place, *place.parents))
