"""Installs the servers that are missing: system packages through apt; RabbitMQ 4.x, Kafka, S3Proxy into the cache.

Debian's stable release carries a RabbitMQ of 2022; comparing that with a current Kafka would convince nobody.
So, unless the system's own package is recent enough, a current RabbitMQ with its own Erlang is laid out in a
directory of the cache (a minimal Debian testing) and run from there; the system is not touched.
"""

import os
import re
import subprocess
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from deploy.errors import InstallError
from deploy.native.environment import of_children, of_installers
from deploy.native.install.cache import cache_root, cached
from deploy.native.install.kafka import formatted_storage, mapped_classes
from deploy.native.install.system import (
    apt_install,
    as_root,
    find_program,
    package_candidate,
    package_version,
    require_namespaces,
    require_program,
    run,
)
from deploy.progress import Steps
from deploy.topology import ServerName

KAFKA_VERSION = "4.3.0"
S3PROXY_VERSION = "2.6.0"
_JAVA_MAJOR_MIN = 17
_RABBIT_MIN = (4, 1)
_MAVEN_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_DOWNLOAD_TIMEOUT_S = 900
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class RabbitInstall:
    """A RabbitMQ: `chroot` is the directory it must be run in, None when it is the system's own."""

    chroot: Path | None
    version: str


@dataclass(frozen=True)
class KafkaInstall:
    """A Kafka: its jars, the Java that runs it, a formatted storage to be copied, and its classes as Java maps
    them; these last are None where they could not be made."""

    lib: Path
    java: Path
    storage: Path
    classes: Path | None


@dataclass(frozen=True)
class ObjectStorageInstall:
    """S3Proxy: its jars, and the Java that runs it."""

    lib: Path
    java: Path


@dataclass(frozen=True)
class Installed:
    """Where the servers are. What was not asked for may be None."""

    postgres_bin: Path | None = None
    redis_server: Path | None = None
    rabbit: RabbitInstall | None = None
    kafka: KafkaInstall | None = None
    objects: ObjectStorageInstall | None = None


def require_installed(part: _Part | None, title: str) -> _Part:
    """The part of `Installed` that a server needs.

    Raises InstallError naming the server when it was not asked for.
    """
    if part is None:
        raise InstallError(f"{title} is not installed")
    return part


def ensure_installed(servers: Collection[ServerName], steps: Steps) -> Installed:
    """Install what is missing for `servers` and say where everything is.

    Takes milliseconds when nothing is missing. Raises InstallError naming what failed.
    """
    packages = _missing_packages(servers)
    if packages:
        with steps.step(f"installing {' '.join(packages)}"):
            apt_install(packages)
    with ThreadPoolExecutor(max_workers=3) as pool:
        rabbit = pool.submit(_ensure_rabbit, steps) if "rabbit" in servers else None
        kafka = pool.submit(_ensure_kafka, steps) if "kafka" in servers else None
        objects = pool.submit(_ensure_objects, steps) if "objects" in servers else None
        return Installed(
            postgres_bin=_require_postgres() if "postgres" in servers else None,
            redis_server=require_program("redis-server", "redis-server") if "redis" in servers else None,
            rabbit=rabbit.result() if rabbit else None,
            kafka=kafka.result() if kafka else None,
            objects=objects.result() if objects else None,
        )


def versions(installed: Installed) -> dict[str, str]:
    """The versions of the installed servers, as they report them, for reports."""
    found: dict[str, str] = {}
    if installed.postgres_bin:
        found["postgres"] = _first_version([str(installed.postgres_bin / "postgres"), "--version"])
    if installed.redis_server:
        found["redis"] = _first_version([str(installed.redis_server), "--version"])
    if installed.rabbit:
        found["rabbit"] = installed.rabbit.version
    if installed.kafka:
        found["kafka"] = KAFKA_VERSION
    if installed.objects:
        found["objects"] = S3PROXY_VERSION
    return found


def find_postgres_bin() -> Path | None:
    """The directory of initdb and postgres, of the newest version installed."""
    places = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if places:
        return max(places, key=lambda place: float(place.parent.name))
    server = find_program("postgres")
    if server and (server.parent / "initdb").exists():
        return server.parent
    return None


def find_java() -> Path | None:
    """A Java that can run Kafka, and the object storage."""
    candidates = [Path(os.environ["JAVA_HOME"]) / "bin/java"] if os.environ.get("JAVA_HOME") else []
    on_path = find_program("java")
    if on_path:
        candidates.append(on_path)
    candidates += sorted(Path("/usr/lib/jvm").glob("*/bin/java"))
    return next((java for java in candidates if _java_major(java) >= _JAVA_MAJOR_MIN), None)


def _missing_packages(servers: Collection[ServerName]) -> list[str]:
    packages: list[str] = []
    if "postgres" in servers and find_postgres_bin() is None:
        packages.append("postgresql")
    if "redis" in servers and find_program("redis-server") is None:
        packages.append("redis-server")
    jars = [entry for name, entry in _JARS.items() if name in servers]
    if jars and find_java() is None:
        packages.append("default-jre-headless")
    if find_program("mvn") is None and not all((cache_root() / entry).is_dir() for entry in jars):
        packages.append("maven")
    if "rabbit" in servers and not _has_rabbit():
        if _is_recent(package_candidate("rabbitmq-server")):  # apt takes half a second to say
            packages.append("rabbitmq-server")
        elif find_program("debootstrap") is None:
            packages.append("debootstrap")
    return packages


def _has_rabbit() -> bool:
    return (cache_root() / _RABBIT_ENTRY).is_dir() or _is_recent(package_version("rabbitmq-server"))


def _require_postgres() -> Path:
    place = find_postgres_bin()
    if place is None:
        raise InstallError("PostgreSQL's initdb was not found although the package postgresql is installed")
    return place


def _ensure_kafka(steps: Steps) -> KafkaInstall:
    java, lib = _ensure_jars("kafka", f"Kafka {KAFKA_VERSION}", f"kafka_2.13-{KAFKA_VERSION}.jar", steps)
    return KafkaInstall(
        lib, java, formatted_storage(java, lib), mapped_classes(java, _java_build(java), lib, steps)
    )


def _ensure_objects(steps: Steps) -> ObjectStorageInstall:
    java, lib = _ensure_jars("objects", f"S3Proxy {S3PROXY_VERSION}", f"s3proxy-{S3PROXY_VERSION}.jar", steps)
    return ObjectStorageInstall(lib, java)


_JARS: Mapping[ServerName, str] = {"kafka": f"kafka-{KAFKA_VERSION}", "objects": f"s3proxy-{S3PROXY_VERSION}"}
"""Servers that Maven brings, and where the cache has their jars."""


def _ensure_jars(server: ServerName, title: str, jar: str, steps: Steps) -> tuple[Path, Path]:
    """The Java that runs a server, and the directory of its jars, `jar` among them."""
    java = find_java()
    if java is None:
        raise InstallError(f"{title} needs Java {_JAVA_MAJOR_MIN} or newer, and none was found")

    def build(directory: Path) -> None:
        pom = Path(__file__).with_name(f"{_JARS[server].partition('-')[0]}-pom.xml")
        command = ["mvn", "-B", "-q", "-C", "-f", str(pom), _MAVEN_GOAL, f"-DoutputDirectory={directory}"]
        with steps.step(f"downloading {title} (43 MB, once)"):
            run(command, what=f"downloading {title} with Maven", timeout_s=_DOWNLOAD_TIMEOUT_S)
        if not (directory / jar).exists():
            raise InstallError(f"Maven finished but did not bring {jar}")

    lib = cached(_JARS[server], build)
    if ":" in str(lib):
        raise InstallError(f"Java cannot use jars in {lib}, as there is a colon in it; TANDEM_CACHE says where")
    return java, lib


_RABBIT_ENTRY = "rabbitmq-debian-testing"


def _ensure_rabbit(steps: Steps) -> RabbitInstall:
    own = package_version("rabbitmq-server")
    if own is not None and _is_recent(own):
        return RabbitInstall(chroot=None, version=own.split("-")[0])
    require_namespaces("RabbitMQ")

    def build(directory: Path) -> None:
        with steps.step("installing a current RabbitMQ beside the system (390 MB, about 40 s, once)"):
            _debootstrap(directory)

    chroot = cached(_RABBIT_ENTRY, build)
    _open_to_all(chroot)
    return RabbitInstall(chroot=chroot, version=_version_in(chroot))


def _open_to_all(chroot: Path) -> None:
    """Mend what an earlier version left closed under a narrow umask: in there the node is a user of its own."""
    wanted = {chroot: 0o555, chroot / "etc/hosts": 0o444}
    closed = [str(place) for place, bits in wanted.items() if place.stat().st_mode & bits != bits]
    if closed:
        run(as_root(["chmod", "a+rX", *closed]), what="opening RabbitMQ's directory to its user", timeout_s=60)


def _debootstrap(directory: Path) -> None:
    log = cache_root() / "rabbitmq-install.log"
    # In a mount namespace of its own, so that what debootstrap mounts is gone however it ends. There the directory
    # is /mnt: debootstrap fails in one whose name has a blank.
    command = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /mnt && exec debootstrap "$@"', str(directory)]
    options = ["--variant=minbase", "--include=rabbitmq-server", "testing", "/mnt"]
    run(
        as_root([*command, *options, *_debian_mirror()]),
        what=f"installing RabbitMQ with debootstrap (its log is {log})",
        timeout_s=_DOWNLOAD_TIMEOUT_S,
        log=log,
    )
    # Erlang resolves `localhost`; debootstrap makes no hosts file, and the port mapper would not be found.
    finish = 'cd "$1" && echo "127.0.0.1 localhost" > etc/hosts && rm -rf var/cache/apt/* var/lib/apt/lists/*'
    run(as_root(["sh", "-c", finish, "sh", str(directory)]), what="finishing RabbitMQ's directory", timeout_s=60)
    if not _is_recent(_version_in(directory)):
        raise InstallError(f"Debian testing brought RabbitMQ {_version_in(directory)}, which is too old")


def _debian_mirror() -> list[str]:
    """The mirror that this machine's apt already uses, if it is one of Debian; else debootstrap's default."""
    try:
        done = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"],
            env=of_installers(),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return []
    for line in done.stdout.splitlines():
        origin, label, uri = line.split("|", 2)
        # A snapshot has only the releases of its day; debootstrap's own default is right then.
        if origin == "Debian" and label == "Debian" and "snapshot" not in uri:
            return [uri]
    return []


def _version_in(chroot: Path) -> str:
    places = sorted((chroot / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
    if not places:
        raise InstallError(f"there is no RabbitMQ in {chroot}; remove that directory and try again")
    return places[-1].name.removeprefix("rabbitmq_server-")


def _is_recent(version: str | None) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _RABBIT_MIN


def _java_major(java: Path) -> int:
    found = re.search(r'version "(\d+)', _java_says(java))
    return int(found[1]) if found else 0


def _java_build(java: Path) -> str:
    """Tells apart what cannot use each other's archives of classes: `17.0.15+6-Debian-1deb12u1`."""
    found = re.search(r"\(build ([\w.+-]+)", _java_says(java))
    return found[1] if found else str(_java_major(java))


@cache
def _java_says(java: Path) -> str:
    try:
        done = subprocess.run(
            [str(java), "-version"], env=of_children(), capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stderr + done.stdout


def _first_version(command: list[str]) -> str:
    done = subprocess.run(command, env=of_children(), capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found[0] if found else "unknown"
