"""RabbitMQ: one node with its own Erlang port mapper, in a chroot where the system's package is too old.

In the chroot the instance's data is bound to /srv. Node and mounts live in namespaces of their own, so
both are gone when the first process ends, however it ends. Root runs the node as the chroot's user rabbitmq; a
normal user needs no root for it: in a user namespace the node seems to run as root and is that user.
"""

import os
import shlex
import subprocess
from pathlib import Path

import aio_pika

from deploy.errors import StartError
from deploy.native.install import RabbitInstall
from deploy.native.site import Site
from deploy.native.supervision import Program
from deploy.native.system import is_root, last_lines, namespaces

USER = "tandem"
_SCRIPTS = "/usr/lib/rabbitmq/bin"
_READY_QUEUE = "tandem.ready"

# Limits that matter are explicit. The management API serves queue lengths from the queues themselves: its
# statistics database would cost CPU while we measure.
_SETTINGS = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
management_agent.disable_metrics_collector = true
management.disable_stats = true
management.enable_queue_totals = true
default_user = tandem
default_pass = {password}
default_vhost = /
loopback_users.tandem = true
max_message_size = 16777216
channel_max = 2047
heartbeat = 60
consumer_timeout = 1800000
vm_memory_high_watermark.relative = 0.4
disk_free_limit.absolute = 200MB
log.console = true
log.console.level = warning
log.file = false
"""


def url(site: Site) -> str:
    """An amqp:// URL with the password."""
    return f"amqp://{USER}:{site.password}@127.0.0.1:{site.ports.rabbit}/"


def management_url(site: Site) -> str:
    """The management HTTP API; user and password as for AMQP."""
    return f"http://127.0.0.1:{site.ports.rabbit_management}"


def prepare(site: Site, install: RabbitInstall) -> list[Program]:
    """Write the settings and say how to run the port mapper and the node."""
    place = site.data("rabbit")
    _write_settings(site, place, install)
    node = Program(
        "rabbit",
        _inside(site, install, "rabbitmq-server"),
        environment={} if install.chroot else _environment(site, place),
        stop_timeout_s=30,
        stop_whole_group=True,  # neither `unshare` nor the shell in it passes a signal on
        die_with_supervisor="KILL" if install.chroot else "TERM",
    )
    if install.chroot:
        return [node]  # Erlang starts the port mapper itself, and it ends with the node's process namespace
    mapper = ["epmd", "-port", str(site.ports.rabbit_epmd), "-address", "127.0.0.1"]
    return [Program("epmd", mapper, stop_timeout_s=5), node]


async def probe(site: Site) -> None:
    """Raise unless a queue can be declared: the port opens a little before the broker is ready."""
    connection = await aio_pika.connect(url(site), timeout=5)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(_READY_QUEUE, exclusive=True, auto_delete=True, timeout=5)


def control(site: Site, install: RabbitInstall, *arguments: str, timeout_s: float = 60) -> str:
    """Run rabbitmqctl on the instance's node and return what it printed; takes about a second.

    Raises StartError with its last lines when it fails.
    """
    done = subprocess.run(
        _inside(site, install, "rabbitmqctl", *arguments),
        env={**os.environ, **_environment(site, site.data("rabbit"))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    if done.returncode != 0:
        raise StartError(f"rabbitmqctl {' '.join(arguments)} failed:\n{last_lines(done.stdout)}")
    return done.stdout


def _inside(site: Site, install: RabbitInstall, script: str, *arguments: str) -> list[str]:
    command = [f"{_SCRIPTS}/{script}", *arguments]
    if install.chroot is None:
        return command
    root = install.chroot
    settings = [f"{key}={value}" for key, value in _environment(site, Path("/srv")).items()]
    account = [f"--userspec={_account(root)}"] if is_root() else []
    enter = shlex.join(["chroot", *account, str(root), "/usr/bin/env", *settings, *command])
    steps = [
        f"mount -t proc proc {shlex.quote(str(root / 'proc'))}",
        f"mount --rbind /dev {shlex.quote(str(root / 'dev'))}",
        f"mount --rbind {shlex.quote(str(site.data('rabbit')))} {shlex.quote(str(root / 'srv'))}",
        enter,
    ]
    # The shell stays as the namespace's first process: `chroot` changes the user, and with that the kernel
    # forgets to end it with its parent.
    script = " && ".join(steps) + "; exit $?"
    return [*namespaces(), "sh", "-c", script]


def _environment(site: Site, place: Path) -> dict[str, str]:
    return {
        "HOME": str(place),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": f"tandem-{site.ports.rabbit}@localhost",
        "RABBITMQ_DIST_PORT": str(site.ports.rabbit_dist),
        "RABBITMQ_CONFIG_FILE": str(place / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(place / "mnesia"),
        "RABBITMQ_LOG_BASE": str(place / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(site.ports.rabbit_epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }


def _write_settings(site: Site, place: Path, install: RabbitInstall) -> None:
    settings = place / "rabbitmq.conf"
    settings.touch(mode=0o600)
    settings.write_text(
        _SETTINGS.format(amqp=site.ports.rabbit, management=site.ports.rabbit_management, password=site.password)
    )
    (place / "enabled_plugins").write_text("[rabbitmq_management].\n")
    for directory in ("mnesia", "log"):
        (place / directory).mkdir(exist_ok=True)
    if install.chroot and is_root():
        uid, gid = (int(part) for part in _account(install.chroot).split(":"))
        for path in (place, *place.iterdir()):
            os.chown(path, uid, gid)


def _account(chroot: Path) -> str:
    """uid:gid of the user rabbitmq in there; outside, the numbers may belong to somebody else."""
    for line in (chroot / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == "rabbitmq":
            return f"{fields[2]}:{fields[3]}"
    raise StartError(f"there is no user rabbitmq in {chroot}; remove that directory and try again")
