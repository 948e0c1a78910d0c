"""The parts of a process whose servers are nowhere: for the checks that an app makes before it asks them."""

from __future__ import annotations

from collections.abc import Collection

from deploy.topology import BrokerName
from shared.process.parts import Parts, build_parts
from shared.process.service import Service
from shared.settings import Settings


def unserved(
    service: Service, broker: BrokerName = "rabbit", roles: Collection[str] = ("api", "relay", "consumer")
) -> Parts:
    settings = Settings(
        roles=frozenset(roles),
        broker=broker,
        http_port=1,
        postgres_dsn=f"postgresql://nobody@127.0.0.1:1/{service.name}",
        redis_url="redis://127.0.0.1:1/0",
        rabbit_url="amqp://127.0.0.1:1",
        kafka_bootstrap="127.0.0.1:1",
    )
    return build_parts(service.name, settings)
