"""A running broker confirms when the profile of a comparison says that it does, and not as its file says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.native import Ports, Runtime
from deploy.native.site import Durability
from deploy.progress import Steps
from deploy.topology import BrokerName

WAL = 'lists:flatten(io_lib:format("~0p", [sys:get_state(ra_log_wal)])).'
"""What the process that writes the log of all quorum queues goes by."""


@contextmanager
def running(root: Path, broker: BrokerName, durability: Durability) -> Iterator[Runtime]:
    with Runtime(
        root / "run", Ports.free_block(), servers={broker}, steps=Steps(quiet=True), durability=durability
    ) as runtime:
        runtime.start_servers()
        yield runtime
    runtime.site.remove()


def sync_methods(runtime: Runtime) -> list[str]:
    return re.findall(r",(datasync|sync|none),", runtime.rabbitmqctl("eval", WAL))


def test_rabbitmq_syncs_the_log_of_its_queues_by_itself_and_leaves_it_to_the_kernel_when_told(
    servers: Runtime, tmp_path: Path
) -> None:
    assert sync_methods(servers) == ["datasync"]
    with running(tmp_path, "rabbit", "pagecache") as runtime:
        assert sync_methods(runtime) == ["none"]


def test_kafka_syncs_each_append_and_each_position(tmp_path: Path) -> None:
    with running(tmp_path, "kafka", "fsync") as runtime:
        assert asyncio.run(flush_messages(f"127.0.0.1:{runtime.site.ports.kafka}")) == "1"


async def flush_messages(bootstrap: str) -> str:
    """After how many records a log of this broker is synced."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
    finally:
        await admin.close()
    values = {name: value for *_, entries in answer.resources for name, value, *_ in entries}
    return str(values["log.flush.interval.messages"])
