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
from typing import Any

from deploy.native.install.system import is_root
from deploy.native.ports import Ports

# Unix socket addresses end at 107 bytes; supervisor adds a suffix while it creates its own.
_SOCKET_PATH_MAX = 90


@dataclass(frozen=True)
class Site:
    """Where an instance lives, on which ports, and its password (the same for all its servers)."""

    root: Path
    ports: Ports
    password: str = field(repr=False)

    @classmethod
    def open(cls, root: Path, ports: Ports) -> "Site":
        """Make the root, or come back to it: an existing instance keeps its password, since its data has it."""
        root = root.resolve()
        root.mkdir(parents=True, exist_ok=True)
        kept = read_state(root)
        return cls(root, ports, str(kept.get("password") or secrets.token_hex(16)))

    @property
    def logs(self) -> Path:
        """One rotating log per process."""
        return self._made(self.root / "logs")

    @property
    def telemetry(self) -> Path:
        """OTLP JSON lines, a file per process."""
        return self._made(self.root / "telemetry")

    @property
    def programs(self) -> Path:
        """The generated configuration of supervisor."""
        return self._made(self.root / "supervisor")

    @property
    def control_socket(self) -> Path:
        """Supervisor's socket: in the root, or in the temporary directory where that path is too long."""
        place = self.root / "supervisor.sock"
        if len(os.fsencode(place)) <= _SOCKET_PATH_MAX:
            return place
        return self._made(Path(tempfile.gettempdir()) / f"tandem-{self.fingerprint}") / "supervisor.sock"

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
        place = self.root / "data" / server
        if owner is None or not is_root():
            return self._made(place)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            if not _reachable_by_all(place.parent):
                elsewhere = self._unreachable_place(server)
                elsewhere.mkdir(parents=True, exist_ok=True)
                place.unlink(missing_ok=True)
                place.symlink_to(elsewhere)
            place.mkdir(exist_ok=True)
            account = pwd.getpwnam(owner)
            os.chown(place, account.pw_uid, account.pw_gid)
        return place.resolve()

    def remove(self) -> None:
        """Delete everything that the instance wrote."""
        for link in (self.root / "data").glob("*"):
            if link.is_symlink():
                shutil.rmtree(link.resolve(), ignore_errors=True)
        shutil.rmtree(Path("/var/tmp") / f"tandem-{self.fingerprint}", ignore_errors=True)  # noqa: S108
        shutil.rmtree(self.control_socket.parent if self.control_socket.parent != self.root else self.root)
        shutil.rmtree(self.root, ignore_errors=True)

    def _unreachable_place(self, server: str) -> Path:
        # Only for data that another user must reach and a root that it cannot, such as a clone under /root.
        base = Path("/var/tmp") / f"tandem-{self.fingerprint}"  # noqa: S108
        base.mkdir(mode=0o755, exist_ok=True)
        if base.stat().st_uid != os.geteuid():
            raise PermissionError(f"{base} belongs to another user")
        return base / server

    @staticmethod
    def _made(place: Path) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        return place


def read_state(root: Path) -> dict[str, Any]:
    """What `write_state` wrote; empty when there is no instance."""
    try:
        state: dict[str, Any] = json.loads((root / "instance.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return state


def write_state(root: Path, state: dict[str, Any]) -> None:
    """Replace the instance's description; readable by its owner only, since the password is in it."""
    fresh = root / "instance.json.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(state, file, indent=2)
    fresh.rename(root / "instance.json")


def _reachable_by_all(place: Path) -> bool:
    return all(directory.stat().st_mode & 0o001 for directory in (place, *place.parents))
