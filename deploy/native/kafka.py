"""Kafka: one node that is broker and controller (KRaft), from the jars of Maven Central."""

import asyncio
import contextlib
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from deploy.errors import StartError
from deploy.native.site import Site
from deploy.native.supervision import Program
from deploy.native.system import last_lines

_HEAP = "512m"
_FORMAT_TIMEOUT_S = 60
_READY_TOPIC = "tandem-ready"

# Every option that the comparison depends on is explicit. One node: the internal topics cannot have more replicas.
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={directory}
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

# Kafka tells its clients where to come back to. One that came through a proxy must be told the proxy's address.
_BEHIND_PROXY = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},PROXIED://127.0.0.1:{behind}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
"""


def bootstrap(site: Site) -> str:
    """host:port for clients."""
    return f"127.0.0.1:{site.ports.kafka}"


def prepare(site: Site, kafka_lib: Path, java: Path) -> list[Program]:
    """Format the storage if there is none yet, write the settings and say how to run it.

    Raises StartError when formatting fails.
    """
    place = site.data("kafka")
    storage = place / "log"
    settings = place / "server.properties"
    settings.write_text(_settings(site, storage))
    classes = [str(java), "-cp", f"{kafka_lib}/*"]
    if not (place / "formatted").exists():
        shutil.rmtree(storage, ignore_errors=True)
        _format(classes, settings)
        (place / "formatted").touch()
    options = [f"-Xms{_HEAP}", f"-Xmx{_HEAP}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    times = "-Dorg.slf4j.simpleLogger.showDateTime=true"
    command = [str(java), *options, times, *classes[1:], "kafka.Kafka", str(settings)]
    return [Program("kafka", command, stop_timeout_s=30)]


async def probe(site: Site) -> None:
    """Raise unless a record is stored and the group coordinator answers (it makes its topic at the first call)."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap(site), request_timeout_ms=5000)
    await admin.start()
    try:
        with contextlib.suppress(TopicAlreadyExistsError):
            await admin.create_topics([NewTopic(_READY_TOPIC, num_partitions=1, replication_factor=1)])
        await admin.find_coordinator("tandem-ready")
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap(site), acks="all", request_timeout_ms=5000)
    await producer.start()
    try:
        await asyncio.wait_for(producer.send_and_wait(_READY_TOPIC, b"ready"), timeout=10)
    finally:
        await producer.stop()


def _settings(site: Site, storage: Path) -> str:
    ports = {"port": site.ports.kafka, "controller": site.ports.kafka_controller}
    text = _SETTINGS.format(**ports, directory=storage)
    if not site.ports.proxied:
        return text
    proxy, behind = site.ports.proxies["kafka"]
    return text + _BEHIND_PROXY.format(**ports, proxy=proxy, behind=behind)  # of two equal names the last counts


def new_cluster_id() -> str:
    """A random id as Kafka makes them: never with a leading dash, which would read as an option."""
    while True:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster.startswith("-"):
            return cluster


def _format(classes: list[str], settings: Path) -> None:
    cluster = new_cluster_id()
    command = [*classes, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(settings)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_FORMAT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise StartError(f"formatting Kafka's storage took longer than {_FORMAT_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise StartError(f"formatting Kafka's storage failed:\n{last_lines(done.stdout)}")
