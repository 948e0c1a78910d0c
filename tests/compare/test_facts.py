"""What a report says of the servers, the machine and the packages."""

from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from experiment.facts import versions


def test_the_versions_are_those_of_the_servers_and_of_the_packages_that_talk_to_them() -> None:
    servers: Any = SimpleNamespace(versions=lambda: {"redis": "7.0.15", "kafka": "4.3.0"})
    found = versions(servers)
    assert (found["redis"], found["kafka"]) == ("7.0.15", "4.3.0")
    assert found["redis-py"] == version("redis")
