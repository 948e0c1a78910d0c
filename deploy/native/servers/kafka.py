"""Kafka: one node, or three, each of them broker and controller (KRaft), from the jars of Maven Central."""

import asyncio
import contextlib
import shutil

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from deploy.native.install.install import Installed, KafkaInstall, require_installed
from deploy.native.install.kafka import copy_storage, new_kafka_id
from deploy.native.program import Program
from deploy.native.servers.server import BrokerServer
from deploy.native.site import Site
from deploy.topology import ServerName

_HEAP = "512m"
_HEAP_IN_CLUSTER = "384m"
_READY_TOPIC = "tandem-ready"
_COPIES_IN_CLUSTER = {"TANDEM_KAFKA_REPLICATION_FACTOR": "3", "TANDEM_KAFKA_MIN_INSYNC_REPLICAS": "2"}

# Every option that the comparison depends on is explicit. One node: the internal topics cannot have more replicas.
# Of two equal names the last counts: what a cluster or a proxy needs is appended. `log.dirs` is relative to where
# the node runs: a path would be split at its commas, and read as Latin-1.
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=log
num.partitions=12
default.replication.factor=1
min.insync.replicas=1
auto.create.topics.enable=false
offsets.topic.num.partitions=12
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.hours=168
message.max.bytes=1048588
"""

_CLUSTER = """\
node.id={node}
controller.quorum.voters={voters}
default.replication.factor=3
min.insync.replicas=2
unclean.leader.election.enable=false
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
"""

# A record is confirmed when it is on the disk, and so is a consumer's position.
_SYNCED = "log.flush.interval.messages=1\n"

# Kafka tells its clients where to come back to. One that came through a proxy must be told the proxy's address.
_BEHIND_PROXY = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},PROXIED://127.0.0.1:{behind}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
"""


class Kafka(BrokerServer):
    """One node, or three; three hold every record three times, and two must have it before it counts."""

    name: ServerName = "kafka"
    title = "Kafka"

    def port(self, site: Site, node: int = 1) -> int:
        """Kafka's protocol."""
        return site.ports.kafka_node(node)[0]

    def ports(self, site: Site, node: int = 1) -> dict[str, int]:
        """For clients, and for the quorum of controllers."""
        clients, controller = site.ports.kafka_node(node)
        which = f" {node}" if node > 1 else ""
        return {f"Kafka{which}": clients, f"Kafka's controller{which}": controller}

    def url(self, site: Site, node: int = 1) -> str:
        """host:port of the node; Kafka has no URLs."""
        return f"127.0.0.1:{self.port(site, node)}"

    def settings(self, site: Site) -> dict[str, str]:
        """host:port of every node, separated by commas; where there are three, how many copies a topic has."""
        bootstrap = ",".join(self.url(site, node) for node in range(1, self.nodes(site) + 1))
        return {"TANDEM_KAFKA_BOOTSTRAP": bootstrap, **(_COPIES_IN_CLUSTER if self.nodes(site) > 1 else {})}

    def prepare(self, site: Site, installed: Installed) -> list[Program]:
        """Format the storage if there is none yet, write the settings and say how to run it, each node.

        Raises InstallError when it cannot be formatted.
        """
        kafka, cluster = require_installed(installed.kafka, self.title), new_kafka_id()
        return [_prepare_node(site, node, cluster, kafka) for node in range(1, self.nodes(site) + 1)]

    async def probe(self, site: Site, node: int = 1) -> None:
        """Raise unless a record is stored and the coordinator of groups answers.

        Kafka makes the coordinator's topic when it is first asked for one.
        """
        bootstrap_servers, nodes = self.url(site, node), self.nodes(site)
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=5000)
        try:
            await admin.start()
            with contextlib.suppress(TopicAlreadyExistsError):
                await admin.create_topics([NewTopic(_READY_TOPIC, num_partitions=1, replication_factor=nodes)])
            await admin.find_coordinator("tandem-ready")
        finally:
            await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", request_timeout_ms=5000)
        try:
            await producer.start()
            await asyncio.wait_for(producer.send_and_wait(_READY_TOPIC, b"ready"), timeout=10)
        finally:
            await producer.stop()


def _prepare_node(site: Site, node: int, cluster: str, kafka: KafkaInstall) -> Program:
    name = "kafka" if node == 1 else f"kafka-{node}"
    place = site.data(name)
    storage = place / "log"
    settings = place / "server.properties"
    settings.write_text(_settings(site, node))
    # A node that is killed leaves its unpacked native libraries behind: here, and not in everybody's /tmp.
    scratch = place / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    if not (place / "formatted").exists():
        shutil.rmtree(storage, ignore_errors=True)
        copy_storage(kafka.storage, storage, node=node, cluster=cluster)
        (place / "formatted").touch()
    jvm = [str(kafka.java), f"-Djava.io.tmpdir={scratch}", "-XX:-UsePerfData", "-cp", f"{kafka.lib}/*"]
    if kafka.classes:
        jvm.append(f"-XX:SharedArchiveFile={kafka.classes}")
    heap = _HEAP if site.ports.nodes == 1 else _HEAP_IN_CLUSTER
    logging = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
    command = [*jvm, f"-Xms{heap}", f"-Xmx{heap}", *logging, "kafka.Kafka", str(settings)]
    return Program(name, command, directory=place, stop_timeout_s=30)


def _settings(site: Site, node: int) -> str:
    nodes = range(1, site.ports.nodes + 1)
    port, controller = site.ports.kafka_node(node)
    text = _SETTINGS.format(port=port, controller=controller)
    if site.durability == "fsync":
        text += _SYNCED
    if len(nodes) > 1:
        voters = ",".join(f"{other}@127.0.0.1:{site.ports.kafka_node(other)[1]}" for other in nodes)
        text += _CLUSTER.format(node=node, voters=voters)
    if site.ports.proxied:
        proxy, behind = site.ports.proxies["kafka"]
        text += _BEHIND_PROXY.format(port=port, controller=controller, proxy=proxy, behind=behind)
    return text
