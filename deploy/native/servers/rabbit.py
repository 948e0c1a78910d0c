"""RabbitMQ: one node, or three, with an Erlang port mapper of their own.

Where the system's package is too old they run in a chroot: there the instance's data is bound to /srv. Node and
mounts live in namespaces of their own, so both are gone when the first process ends, however it ends. Root runs
the node as the chroot's user rabbitmq; a normal user needs no root for it: in a user namespace the node seems to
run as root and is that user.
"""

import os
import shlex
import subprocess
from pathlib import Path

import aio_pika

from deploy.errors import StartError
from deploy.native.environment import UMASK, of_children
from deploy.native.install.install import Installed, RabbitInstall, require_installed
from deploy.native.install.system import is_root, last_lines, namespaces
from deploy.native.program import Program
from deploy.native.servers.server import BrokerServer
from deploy.native.site import Site, write_secret
from deploy.topology import ServerName

USER = "tandem"
_SCRIPTS = "/usr/lib/rabbitmq/bin"
_EPMD = "/usr/bin/epmd"

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

# The others join the first, or whichever is there. Metadata and quorum queues are kept by the majority. What the
# consumers of a node held that is gone without a word comes again after 5 s, not after a minute.
_CLUSTER = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = {first}
cluster_formation.classic_config.nodes.2 = {second}
cluster_formation.classic_config.nodes.3 = {third}
consumer_disconnected_timeout = 5000
"""

# A message is confirmed when the kernel has it. By itself the log of quorum queues is synced before that.
_UNSYNCED = "[{ra, [{wal_sync_method, none}]}].\n"


class RabbitMQ(BrokerServer):
    """One node, or three that form a cluster."""

    name: ServerName = "rabbit"
    title = "RabbitMQ"

    def port(self, site: Site, node: int = 1) -> int:
        """AMQP."""
        return site.ports.rabbit_node(node)[0]

    def ports(self, site: Site, node: int = 1) -> dict[str, int]:
        """AMQP, what the nodes talk over, the management API and, once for all nodes, the port mapper."""
        amqp, distribution, management = site.ports.rabbit_node(node)
        which = f" {node}" if node > 1 else ""
        found = {
            f"RabbitMQ{which}": amqp,
            f"RabbitMQ's node{which}": distribution,
            f"RabbitMQ's management{which}": management,
        }
        return found if node > 1 else {**found, "RabbitMQ's port mapper": site.ports.rabbit_epmd}

    def url(self, site: Site, node: int = 1) -> str:
        """An amqp:// URL with the password."""
        return f"amqp://{USER}:{site.password}@127.0.0.1:{self.port(site, node)}/"

    def settings(self, site: Site) -> dict[str, str]:
        """The URL of every node, separated by commas. A quorum queue has a member on each of three by itself."""
        return {"TANDEM_RABBIT_URL": ",".join(self.url(site, node) for node in range(1, self.nodes(site) + 1))}

    def prepare(self, site: Site, installed: Installed) -> list[Program]:
        """Write the settings and say how to run the port mapper and the nodes."""
        install = require_installed(installed.rabbit, self.title)
        nodes = [_prepare_node(site, node, install) for node in range(1, self.nodes(site) + 1)]
        if install.chroot and len(nodes) == 1:
            return nodes  # Erlang starts the port mapper itself, and it ends with the node's process namespace
        if install.chroot:  # the port mapper of three must not end with one of them
            mapper = _inside(site, install, _EPMD)
            return [Program("epmd", mapper, stop_timeout_s=5, stop_whole_group=True), *nodes]
        mapper = ["epmd", "-port", str(site.ports.rabbit_epmd), "-address", "127.0.0.1"]
        return [Program("epmd", mapper, stop_timeout_s=5), *nodes]

    async def probe(self, site: Site, node: int = 1) -> None:
        """Raise unless a queue can be declared: the port opens a little before the broker is ready."""
        connection = await aio_pika.connect(self.url(site, node), timeout=5)
        async with connection:
            channel = await connection.channel()
            # A generated name: that of the probe before may be locked until its connection is forgotten.
            await channel.declare_queue(exclusive=True, auto_delete=True, timeout=5)


def management_url(site: Site) -> str:
    """The management HTTP API; user and password as for AMQP."""
    return f"http://127.0.0.1:{site.ports.rabbit_management}"


def control(site: Site, install: RabbitInstall, *arguments: str, timeout_s: float = 60) -> str:
    """Run rabbitmqctl on the instance's node and return what it printed; takes about a second.

    Raises StartError with its last lines when it fails.
    """
    done = subprocess.run(
        _inside(site, install, f"{_SCRIPTS}/rabbitmqctl", *arguments),
        env={**of_children(), **_environment(site, _place(site, 1), 1)},
        umask=UMASK,
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


def _prepare_node(site: Site, node: int, install: RabbitInstall) -> Program:
    place = _place(site, node)
    _write_settings(site, place, node, install)
    return Program(
        place.name,
        _inside(site, install, f"{_SCRIPTS}/rabbitmq-server", node=node),
        environment={} if install.chroot else _environment(site, place, node),
        stop_timeout_s=30,
        stop_whole_group=True,  # neither `unshare` nor the shell in it passes a signal on
        die_with_supervisor="KILL" if install.chroot else "TERM",
    )


def _place(site: Site, node: int) -> Path:
    return site.data("rabbit" if node == 1 else f"rabbit-{node}")


def _node_name(site: Site, node: int) -> str:
    return f"tandem-{site.ports.rabbit_node(node)[0]}@localhost"


def _inside(site: Site, install: RabbitInstall, program: str, *arguments: str, node: int = 1) -> list[str]:
    command = [program, *arguments]
    if install.chroot is None:
        return command
    root = install.chroot
    environment = {**_environment(site, Path("/srv"), node), "TMPDIR": "/tmp"}  # noqa: S108  the root's own
    settings = [f"{key}={value}" for key, value in environment.items()]
    account = [f"--userspec={_account(root)}"] if is_root() else []
    enter = shlex.join(["chroot", *account, str(root), "/usr/bin/env", *settings, *command])
    steps = [
        f"mount -t proc proc {shlex.quote(str(root / 'proc'))}",
        f"mount --rbind /dev {shlex.quote(str(root / 'dev'))}",
        f"mount --rbind {shlex.quote(str(_place(site, node)))} {shlex.quote(str(root / 'srv'))}",
        enter,
    ]
    # The shell stays as the namespace's first process: `chroot` changes the user, and with that the kernel
    # forgets to end it with its parent.
    script = " && ".join(steps) + "; exit $?"
    return [*namespaces(), "sh", "-c", script]


def _environment(site: Site, place: Path, node: int) -> dict[str, str]:
    return {
        "HOME": str(place),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": _node_name(site, node),
        "RABBITMQ_DIST_PORT": str(site.ports.rabbit_node(node)[1]),
        "RABBITMQ_CONFIG_FILE": str(place / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(place / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(place / "mnesia"),
        "RABBITMQ_LOG_BASE": str(place / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(site.ports.rabbit_epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }


def _write_settings(site: Site, place: Path, node: int, install: RabbitInstall) -> None:
    settings = place / "rabbitmq.conf"
    amqp, _, management = site.ports.rabbit_node(node)
    text = _SETTINGS.format(amqp=amqp, management=management, password=site.password)
    if site.ports.nodes > 1:
        first, second, third = (_node_name(site, other) for other in (1, 2, 3))
        text += _CLUSTER.format(first=first, second=second, third=third)
        _write_cookie(site, place)
    write_secret(settings, text)
    (place / "advanced.config").write_text(_UNSYNCED if site.durability == "pagecache" else "[].\n")
    (place / "enabled_plugins").write_text("[rabbitmq_management,rabbitmq_consistent_hash_exchange].\n")
    for directory in ("mnesia", "log"):
        (place / directory).mkdir(exist_ok=True)
    if install.chroot and is_root():
        uid, gid = (int(part) for part in _account(install.chroot).split(":"))
        for path in (place, *place.iterdir()):
            os.chown(path, uid, gid)


def _write_cookie(site: Site, place: Path) -> None:
    """Nodes talk to each other when they have the same one."""
    cookie = place / ".erlang.cookie"
    cookie.unlink(missing_ok=True)
    cookie.touch(mode=0o600)
    cookie.write_text(site.password)
    cookie.chmod(0o400)


def _account(chroot: Path) -> str:
    """uid:gid of the user rabbitmq in there; outside, the numbers may belong to somebody else."""
    for line in (chroot / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == "rabbitmq":
            return f"{fields[2]}:{fields[3]}"
    raise StartError(f"there is no user rabbitmq in {chroot}; remove that directory and try again")
