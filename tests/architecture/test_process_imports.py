"""What a process imports is what it needs: imports are most of what starting a process costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.source import REPOSITORY

PROGRAM = """
import sys
from services.notification.app import SERVICE
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings

settings = Settings.from_environment()
parts = build_parts(SERVICE.name, settings)
application_of(Process(SERVICE, parts))
if "api" in settings.roles:
    parts.broker.asyncapi("Tandem", "0", SERVICE.operations(SERVICE.subscribers))
print(*sys.modules, sep="\\n")
"""
CLIENTS = {
    "rabbit": {"aio_pika", "aiormq", "pamqp", "faststream.rabbit", "shared.broker.rabbit.adapter"},
    "kafka": {"aiokafka", "faststream.kafka", "shared.broker.kafka.adapter"},
}
HTTP = {"fastapi", "services.notification.http"}
ASYNCAPI = {"faststream.specification.asyncapi.v2_6_0", "faststream.specification.asyncapi.v3_0_0"}
"""FastStream's generator; its package is imported by every `import faststream`."""
NEVER_IN_THIS_ONE = {
    *("alembic", "httpx", "jinja2", "obstore", "pycountry", "pydantic_extra_types", "requests"),
    "opentelemetry.instrumentation",
}
"""It sends no mail, migrates nothing, checks no currency, archives nothing, exports no spans, and is told to do
nothing that only OpenTelemetry's own instrumentation can."""


def imported(broker: str, role: str) -> set[str]:
    """The modules that a process of the notification service has when it begins to serve; with the role `api`,
    when it has been asked for its AsyncAPI document, too."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "TANDEM_BROKER": broker,
        "TANDEM_ROLES": role,
        "TANDEM_HTTP_PORT": "1",
        "TANDEM_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/notification",
        "TANDEM_REDIS_URL": "redis://127.0.0.1:1/0",
        "TANDEM_RABBIT_URL": "amqp://127.0.0.1:1",
        "TANDEM_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    }
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return set(done.stdout.split())


@pytest.mark.parametrize(("broker", "other"), [("rabbit", "kafka"), ("kafka", "rabbit")])
def test_a_consumer_imports_no_http_framework_no_other_client_and_no_document_generator(
    broker: str, other: str
) -> None:
    modules = imported(broker, "consumer")
    assert modules & (HTTP | ASYNCAPI | CLIENTS[other] | NEVER_IN_THIS_ONE) == set()
    assert modules >= CLIENTS[broker]


def test_the_names_that_a_consumer_must_not_import_are_the_right_ones() -> None:
    modules = imported("rabbit", "api")
    assert modules >= HTTP
    assert "opentelemetry.instrumentation" not in modules
    assert modules & ASYNCAPI
