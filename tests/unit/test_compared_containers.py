"""What the servers of a comparison in containers are told, and within which limits: as the native ones are."""

from __future__ import annotations

from typing import get_args

import pytest

from deploy.native.ports import Ports
from deploy.native.servers import kafka, postgres, rabbit, redis
from deploy.native.site import Durability
from deploy.stack.compared import ServerContainer, server_containers
from deploy.stack.docker import socket_within
from deploy.topology import BROKERS, ServerName

PORTS = Ports(24_000)
PASSWORD = "hush-hush"
DURABILITIES: tuple[Durability, ...] = get_args(Durability)


def made(durability: Durability = "usual", engine_cpus: int = 8) -> dict[ServerName, ServerContainer]:
    return server_containers(PORTS, durability, PASSWORD, engine_cpus)


def lines_of(text: str, separator: str) -> dict[str, str]:
    """The settings of a native file that do not depend on the instance."""
    rows = [line.partition(separator) for line in text.splitlines() if line.strip() and "{" not in line]
    return {name.strip(): value.strip().strip("'\"") for name, _, value in rows}


def test_each_server_is_told_what_the_native_one_is_told() -> None:
    found = made()
    for server, native in {
        "postgres": lines_of(postgres._SETTINGS, "="),
        "redis": lines_of(redis.SETTINGS, " "),
        "rabbit": lines_of(rabbit._SETTINGS, "="),
        "kafka": lines_of(kafka._SETTINGS, "="),
    }.items():
        given = found[server].settings  # type: ignore[index]
        both = {name: (value, native[name]) for name, value in given.items() if name in native}
        assert len(both) >= 4
        # The listeners of the image have names of their own.
        assert {name for name, (one, other) in both.items() if one != other} <= {"inter.broker.listener.name"}


@pytest.mark.parametrize("durability", DURABILITIES)
def test_the_brokers_confirm_when_the_native_ones_do(durability: Durability) -> None:
    found = made(durability)
    [(name, value)] = lines_of(kafka._SYNCED, "=").items()
    assert found["kafka"].settings.get(name) == (value if durability == "fsync" else None)
    assert found["kafka"].environment.get("KAFKA_LOG_FLUSH_INTERVAL_MESSAGES") == found["kafka"].settings.get(name)
    unsynced = rabbit._UNSYNCED if durability == "pagecache" else None
    assert found["rabbit"].files.get("/etc/rabbitmq/advanced.config") == unsynced
    assert found["rabbit"].settings.get("advanced.config") == unsynced


@pytest.mark.parametrize(("engine_cpus", "cpus"), [(1, 1.0), (2, 2.0), (64, 2.0)])
def test_both_brokers_have_the_same_limits_which_the_engine_can_give(engine_cpus: int, cpus: float) -> None:
    limits = {
        (each.cpus, each.memory_bytes) for name, each in made(engine_cpus=engine_cpus).items() if name in BROKERS
    }
    assert limits == {(cpus, 2 << 30)}


def test_every_container_is_limited_without_swap_and_none_publishes_anything() -> None:
    for container in made().values():
        words = list(container.words())
        assert words[:4] == ["--memory", str(container.memory_bytes), "--memory-swap", str(container.memory_bytes)]
        assert not {"--publish", "-p", "--publish-all", "-P", "--network", "--privileged"} & {*words}
        assert all(":" not in words[at + 1] for at, word in enumerate(words) if word == "--volume"), (
            "mounts nothing"
        )


def test_no_password_is_in_a_list_of_processes_or_in_a_report() -> None:
    found = made()
    assert PASSWORD in found["postgres"].environment.values()
    assert PASSWORD in found["rabbit"].environment.values()
    for container in found.values():
        assert PASSWORD not in " ".join(container.words()) + str(container.settings) + repr(container)


def test_each_server_listens_where_the_native_instance_does_on_the_loopback_alone() -> None:
    found = made()
    assert {"-clisten_addresses=127.0.0.1", f"-cport={PORTS.postgres}"} <= {*found["postgres"].command}
    assert list(found["redis"].command)[-4:] == ["--bind", "127.0.0.1", "--port", str(PORTS.redis)]
    conf = lines_of(found["rabbit"].files["/etc/rabbitmq/conf.d/90-tandem.conf"], "=")
    assert conf["listeners.tcp.1"] == f"127.0.0.1:{PORTS.rabbit}"
    assert (conf["management.tcp.ip"], conf["management.tcp.port"]) == ("127.0.0.1", str(PORTS.rabbit_management))
    told = found["kafka"].environment
    assert told["KAFKA_LISTENERS"] == (
        f"CONTROLLER://127.0.0.1:{PORTS.kafka_controller},INTERNAL://127.0.0.1:{PORTS.kafka}"
    )
    assert told["KAFKA_ADVERTISED_LISTENERS"] == f"INTERNAL://127.0.0.1:{PORTS.kafka}"
    assert told["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@127.0.0.1:{PORTS.kafka_controller}"


def test_what_is_left_to_compose_to_fill_in_is_told_to_none() -> None:
    for container in made().values():
        assert "${" not in " ".join(
            [*container.command, *container.environment.values(), *container.files.values()]
        )


def test_a_version_is_that_of_the_image() -> None:
    found = {name: (each.image, each.version) for name, each in made().items()}
    assert all(image.partition(":")[2].startswith(version) for image, version in found.values())
    assert found["kafka"][1].count(".") == 2


@pytest.mark.parametrize(
    ("host", "system", "platform", "path"),
    [
        ("unix:///var/run/docker.sock", "Debian GNU/Linux 12 (bookworm)", "linux", "/var/run/docker.sock"),
        ("unix:///run/user/1000/docker.sock", "Ubuntu 24.04", "linux", "/run/user/1000/docker.sock"),
        ("unix:///home/ada/.docker/desktop/docker.sock", "Docker Desktop", "linux", "/var/run/docker.sock"),
        ("unix:///Users/ada/.colima/default/docker.sock", "Ubuntu 24.04", "darwin", "/var/run/docker.sock"),
        ("ssh://ada@build.example.org", "Ubuntu 24.04", "linux", "/var/run/docker.sock"),
        ("tcp://10.0.0.2:2376", "Ubuntu 24.04", "linux", "/var/run/docker.sock"),
    ],
)
def test_containers_find_the_engine_where_its_machine_has_it(
    host: str, system: str, platform: str, path: str
) -> None:
    assert socket_within(host, system, platform) == path
