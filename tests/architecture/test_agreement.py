"""What is written in two places says the same in both; and rules of the parts that imports cannot show."""

from __future__ import annotations

import ast
import tomllib
from importlib import import_module
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

import shared
from deploy.topology import MAIL_SUBSCRIPTIONS, PROCESSES, SERVICES, SUBSCRIPTIONS
from services.fraud.app import SERVICE as FRAUD
from services.notification.handlers import mail_subscribers
from services.wallet.app import SERVICE as WALLET
from shared.consuming.subscriber import Subscriber
from shared.database import Database
from shared.outside.circuit_breaker import CircuitBreaker
from shared.outside.mail import Mailer
from shared.settings import Settings
from shared.telemetry.telemetry import Telemetry
from tests.architecture.source import REPOSITORY, modules, relative, tree
from tests.unit.unserved import unserved

SETTINGS = Settings(
    broker="rabbit",
    http_port=1,
    smtp_url="smtp://127.0.0.1:1",
    postgres_dsn="postgresql://-",
    redis_url="redis://-",
    rabbit_url="amqp://-",
)
LIVING = (AsyncEngine, Database, Redis, Settings, Telemetry)


def apps() -> dict[str, Any]:
    return {name: import_module(f"services.{name}.app").SERVICE for name in SERVICES}


def of_settings() -> tuple[Subscriber, ...]:
    """Those of fraud and wallet that depend on their settings, whatever these are."""
    return *FRAUD.more_subscribers(unserved(FRAUD)), *WALLET.more_subscribers(unserved(WALLET))


def test_the_process_table_knows_every_service() -> None:
    there = {path.parent.name for path in (REPOSITORY / "services").glob("*/app.py")}
    assert set(SERVICES) == there
    assert {name: service.name for name, service in apps().items()} == {name: name for name in there}


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert shared.__version__ == project["version"]


def test_the_subscriptions_of_the_tools_are_those_of_the_services() -> None:
    real = {(s.name, s.channel) for service in apps().values() for s in service.subscribers}
    real |= {(s.name, s.channel) for s in of_settings()}
    assert set(SUBSCRIPTIONS) == real
    assert set(MAIL_SUBSCRIPTIONS) == {
        (s.name, s.channel) for s in mail_subscribers(Mailer(SETTINGS, CircuitBreaker("smtp")))
    }


def test_every_role_that_a_service_needs_has_a_process() -> None:
    for name, service in apps().items():
        roles = {role for row in PROCESSES if row.service == name for role in row.roles.split(",")}
        needed = {
            *(["api"] if service.application else []),
            *(["relay"] if service.publishes else []),
            *(["consumer"] if service.subscribers or service.background_tasks else []),
            *(["worker"] if service.workers else []),
        }
        assert roles == needed, name


def test_a_subscriber_reads_every_type_of_its_channel_or_says_that_it_ignores_it() -> None:
    """On Kafka all types of a channel arrive: one that is forgotten here would end in the dead letters."""
    published: dict[str, set[str]] = {}
    for service in apps().values():
        for event in service.publishes:
            published.setdefault(event.channel, set()).add(event.event_type)
    for subscribers in [*(service.subscribers for service in apps().values()), of_settings()]:
        for subscriber in subscribers:
            assert published[subscriber.channel] <= subscriber.types | subscriber.ignores, subscriber.name


@pytest.mark.parametrize("part", ["store", "handlers", "domain"])
def test_only_the_unit_of_work_begins_and_ends_transactions(part: str) -> None:
    calls = [
        f"{relative(path)}: {node.attr}"
        for path in modules("services")
        if part in (path.stem, path.parent.name)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in {"begin", "commit", "rollback", "begin_nested"}
    ]
    assert calls == []


def test_telemetry_only_sets_the_one_switch_that_its_library_has_and_looks_which_others_somebody_has_set() -> None:
    telemetry = tree(REPOSITORY / "shared" / "telemetry" / "provider.py")
    uses = [node for node in ast.walk(telemetry) if isinstance(node, ast.Attribute) and node.attr == "environ"]
    calls = [
        node.func.attr
        for node in ast.walk(telemetry)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.value in uses
    ]
    looked_through = [
        node for node in ast.walk(telemetry) if isinstance(node, ast.comprehension) and node.iter in uses
    ]
    assert len(uses) == 2
    assert calls == ["setdefault"]
    assert len(looked_through) == 1


def test_no_module_holds_a_connection_an_engine_or_settings() -> None:
    held = []
    for path in modules("services", "shared"):
        if "migrations" in path.parts:
            continue
        name = relative(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        module = import_module(name)
        held += [f"{name}.{key}" for key, value in vars(module).items() if isinstance(value, LIVING)]
    assert held == []
