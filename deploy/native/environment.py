"""The environment of what the runtime starts: of its own making, whichever shell that was asked in.

What a caller has set for other work (libpq's PGSSLMODE, PYTHONSAFEPATH, OTEL_…, LD_PRELOAD, proxies) would change
servers and services of ours, in one runtime and not in the other. So nothing is passed on but what stands here.
"""

import os
import tempfile
from collections.abc import Mapping, MutableMapping

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Servers and tools of root live here; a normal user's PATH often leaves them out."""
UMASK = 0o022
"""Of everything that is started: what another user's server must reach is not closed by the caller's umask."""

_OF_THE_USER = ("HOME", "USER", "LOGNAME", "TERM", "PYTHONDONTWRITEBYTECODE", "JDK_JAVA_OPTIONS")
"""JDK_JAVA_OPTIONS, which only `java` reads, is how to tell Kafka's Java more: see docs/operating.md."""
_OF_THE_NETWORK = (
    *(f"{scheme}_proxy" for scheme in ("http", "https", "ftp", "all", "no")),
    *(f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "FTP", "ALL", "NO")),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "MAVEN_OPTS", "MAVEN_ARGS", "JAVA_HOME"),
)


def of_children(caller: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What servers and services start with; the settings of each come on top."""
    return {**_own(caller, _OF_THE_USER), "PYTHONUTF8": "1", "TMPDIR": tempfile.gettempdir()}


def of_installers(caller: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What apt, debootstrap and Maven run with: they go through the caller's proxies, with his authorities."""
    return {**_own(caller, (*_OF_THE_USER, *_OF_THE_NETWORK)), "DEBIAN_FRONTEND": "noninteractive"}


def through_sudo(caller: Mapping[str, str] = os.environ) -> list[str]:
    """The same for `env`, as NAME=value: sudo passes nothing on."""
    kept = ("LANG", "LC_ALL", "DEBIAN_FRONTEND", *_OF_THE_NETWORK)
    return [f"{name}={value}" for name, value in of_installers(caller).items() if name in kept]


def forget_libpq(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take libpq's variables out of this process: its own connections go to servers of ours, which know no TLS."""
    for name in [name for name in environment if name.startswith("PG")]:
        del environment[name]


def _own(caller: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    kept = {name: caller[name] for name in names if caller.get(name)}
    path = ":".join(part for part in (caller.get("PATH"), SYSTEM_PATH) if part)
    return {**kept, "PATH": path, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
