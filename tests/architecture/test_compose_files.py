"""The Compose files, checked without an engine: what is pinned, probed, published, and equal in both runtimes."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.native.ports import Ports
from deploy.native.servers import kafka, objects, postgres, rabbit, redis
from deploy.native.service_set import RUNTIME_SETTINGS, RunningProcess, program
from deploy.stack import compose as containers
from deploy.topology import BROKERS, DEAD_LETTER_SUBSCRIPTIONS, PROCESSES, SERVICES, ServiceProcess
from shared.outside.objects import OBJECT_BYTES_MAX
from shared.process.process import GOODBYES_S
from shared.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose"
STACK_FILE = COMPOSE / "compose.yml"
CLUSTER_FILE = DEPLOY / "kafka-cluster.yml"
STACK: dict[str, Any] = yaml.safe_load(STACK_FILE.read_text())["services"]
RABBIT_CLUSTER_FILE = DEPLOY / "rabbitmq-cluster.yml"
CLUSTER: dict[str, Any] = yaml.safe_load(CLUSTER_FILE.read_text())["services"]
RABBIT_CLUSTER: dict[str, Any] = yaml.safe_load(RABBIT_CLUSTER_FILE.read_text())["services"]
EVERYTHING = {**STACK, **CLUSTER, **RABBIT_CLUSTER}

MIGRATIONS = {f"migrate-{service}" for service in SERVICES}
LONG_RUNNING = sorted(EVERYTHING.keys() - MIGRATIONS)
OWN_IMAGE = {*MIGRATIONS, "mail", *(row.name for row in PROCESSES)}
CONTAINER_BROKERS = {"rabbit": "rabbitmq", "kafka": "kafka"}


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", sorted(names))


each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda row: row.name)


def interpolated(value: object, broker: str = "rabbit") -> str:
    """What Compose makes of a value when no variable is set but TANDEM_BROKER."""
    text = re.sub(r"\$\{TANDEM_BROKER:\?[^}]*\}", broker, str(value))
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)


def host_ports(service: dict[str, Any]) -> dict[int, int]:
    """Port in the container → port on the host; fails for one that others than this machine can reach."""
    found = {}
    for published in service.get("ports", []):
        match = re.fullmatch(r"127\.0\.0\.1:(\d+):(\d+)", published)
        assert match, f"{published} is not published on 127.0.0.1 alone"
        found[int(match[2])] = int(match[1])
    return found


def from_images() -> list[str]:
    found = re.findall(r"^FROM (\S+) AS (\S+)$", (COMPOSE / "Dockerfile").read_text(), re.MULTILINE)
    stages = {stage for _, stage in found}
    return [image for image, _ in found if image not in stages]


def native_settings(template: str, separator: str) -> dict[str, str]:
    """The lines of a native settings template that do not depend on the instance."""
    lines = [line for line in template.splitlines() if line.strip() and "{" not in line]
    return {key.strip(): value.strip().strip("'\"") for key, _, value in (ln.partition(separator) for ln in lines)}


# -- images


@pytest.mark.parametrize("image", sorted({service["image"] for service in EVERYTHING.values()} | {*from_images()}))
def test_an_image_is_pinned_to_a_patch_release_of_the_default_registry(image: str) -> None:
    assert re.fullmatch(r"([a-z]+/)?[a-z0-9-]+:\d+\.\d+(\.\d+)?(-[a-z]+)*", image)


def test_the_servers_are_of_the_native_versions() -> None:
    jars = (DEPLOY / "native" / "install" / "kafka-pom.xml").read_text()
    assert STACK["kafka"]["image"] == CLUSTER["kafka-1"]["image"]
    assert STACK["rabbitmq"]["image"] == RABBIT_CLUSTER["rabbitmq-1"]["image"]
    assert f"<version>{STACK['kafka']['image'].partition(':')[2]}</version>" in jars
    jars = (DEPLOY / "native" / "install" / "s3proxy-pom.xml").read_text()
    assert f"<version>{STACK['objects']['image'].partition(':')[2]}</version>" in jars


def test_the_service_image_installs_hashed_wheels_and_runs_without_privileges() -> None:
    text, _, harness = (COMPOSE / "Dockerfile").read_text().partition("\nFROM services AS harness\n")
    assert "COPY compare" in harness
    assert [row["build"]["target"] for row in STACK.values() if "build" in row] == ["services"]
    assert "--require-hashes" in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["tandem"]
    assert text.index("pip install") < text.index("COPY services")
    assert "syntax=" not in text


def test_every_own_container_uses_the_one_image_that_is_built_once() -> None:
    assert len({STACK[name]["image"] for name in OWN_IMAGE}) == 1
    assert sum("build" in service for service in STACK.values()) == 1


def test_a_command_to_paste_sets_what_the_file_requires() -> None:
    texts = [re.sub(r"\\\n# *", "", place.read_text()) for place in (STACK_FILE, CLUSTER_FILE)]
    lines = [line for text in texts for line in text.splitlines()]
    commands = [line for line in lines if "docker compose" in line and "compose/compose.yml" in line]
    assert len(commands) == 3
    assert all("TANDEM_BROKER=" in command for command in commands)


def test_the_mails_are_where_the_file_says() -> None:
    project = yaml.safe_load(STACK_FILE.read_text())["name"]
    [volume] = STACK["mail"]["volumes"]
    maildir = volume.partition(":")[2]
    assert STACK["mail"]["command"][-2:] == ["--maildir", maildir]
    assert f"docker exec {project}-mail-1 sh -c 'cat {maildir}/new/*'" in STACK_FILE.read_text()


# -- health, order, limits


@each(LONG_RUNNING)
def test_a_long_running_container_is_probed_restarted_and_limited(name: str) -> None:
    service = EVERYTHING[name]
    probe = service["healthcheck"]
    assert probe["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= probe.keys()
    assert "start_interval" not in probe, "needs an engine newer than Debian's"
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])


@each(MIGRATIONS)
def test_a_migration_runs_once_after_postgres(name: str) -> None:
    service = STACK[name]
    assert service["command"] == ["python", "-m", "shared.migrate", name.removeprefix("migrate-")]
    assert service["restart"] == "no"
    assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@each_process
def test_a_process_waits_for_its_servers_and_its_schema(process: ServiceProcess) -> None:
    waits = {name: rule["condition"] for name, rule in STACK[process.name]["depends_on"].items()}
    assert waits == {
        "postgres": "service_healthy",
        "redis": "service_healthy",
        "rabbitmq": "service_healthy",
        "kafka": "service_healthy",
        "jaeger": "service_started",
        f"migrate-{process.service}": "service_completed_successfully",
    }


@each_process
def test_a_process_needs_only_the_broker_whose_profile_is_on(process: ServiceProcess) -> None:
    for broker, container in CONTAINER_BROKERS.items():
        assert STACK[container]["profiles"] == [broker]
        assert STACK[process.name]["depends_on"][container]["required"] is False


@each(STACK.keys() - CONTAINER_BROKERS.values())
def test_what_is_not_a_broker_runs_on_every_broker(name: str) -> None:
    assert {*BROKERS, "kafka-cluster"} == {*STACK[name]["profiles"]}


# -- the processes


def test_there_is_a_container_for_each_process_of_the_topology() -> None:
    servers = {"postgres", "redis", "jaeger", "objects", *CONTAINER_BROKERS.values()}
    assert STACK.keys() == servers | OWN_IMAGE


@each_process
@pytest.mark.parametrize("broker", BROKERS)
def test_a_process_gets_good_settings_that_agree_with_the_topology(
    process: ServiceProcess, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = STACK[process.name]["environment"]
    unknown = {key for key in environment if key.removeprefix("TANDEM_").lower() not in Settings.model_fields}
    assert not unknown
    given = {key: interpolated(value, broker) for key, value in environment.items() if value is not None}
    for key in [key for key in os.environ if key.startswith("TANDEM_")]:
        monkeypatch.delenv(key)
    for key, value in given.items():
        monkeypatch.setenv(key, value)

    settings = Settings.from_environment()

    assert settings.broker == broker
    assert settings.process == process.name
    assert settings.roles == {*process.roles.split(",")}
    assert settings.http_port == process.http_port
    given_places = DEAD_LETTER_SUBSCRIPTIONS if process.service == "dead_letter" else ""
    assert ",".join(settings.dead_letter_subscriptions) == given_places
    assert settings.postgres_dsn.rpartition("/")[2] == process.service


@each_process
@pytest.mark.parametrize("given", [{}, {"TANDEM_SHUTDOWN_GRACE_S": "120"}], ids=["default", "longest"])
def test_a_process_may_take_as_long_to_stop_as_the_setting_says_in_both_runtimes(
    process: ServiceProcess, given: dict[str, str]
) -> None:
    period = STACK[process.name]["stop_grace_period"]
    for key, value in given.items():
        period = re.sub(rf"\$\{{{key}:-\d+\}}", value, period)
    parts = re.fullmatch(r"(\d+)s(\d+)s", interpolated(period))
    assert parts
    grace_s = int(given.get("TANDEM_SHUTDOWN_GRACE_S", Settings.model_fields["shutdown_grace_s"].default))
    assert int(parts[1]) == grace_s
    assert int(parts[2]) > GOODBYES_S, "it would be killed before its own limit"
    running = RunningProcess(process.name, process.name, process.service, process.http_port)
    assert program(running, given).stop_timeout_s == int(parts[1]) + int(parts[2])


def test_the_command_that_stops_the_containers_may_take_as_long_as_they_may() -> None:
    field = Settings.model_fields["shutdown_grace_s"]
    [longest_s] = [limit.le for limit in field.metadata if hasattr(limit, "le")]
    servers_s = max(int(STACK[name]["stop_grace_period"].removesuffix("s")) for name in CONTAINER_BROKERS.values())
    assert longest_s + 10 + servers_s < containers._DOWN_TIMEOUT_S


@each_process
def test_a_process_is_told_every_setting_of_the_caller_that_the_runtime_does_not_decide(
    process: ServiceProcess,
) -> None:
    environment = STACK[process.name]["environment"]
    callers = {f"TANDEM_{name.upper()}" for name in Settings.model_fields} - RUNTIME_SETTINGS
    assert not callers - environment.keys()
    assert not RUNTIME_SETTINGS & {key for key, value in environment.items() if value is None}


@each_process
def test_a_process_runs_its_service_on_the_port_of_the_topology(process: ServiceProcess) -> None:
    container = STACK[process.name]
    assert container["command"] == ["python", "-m", f"services.{process.service}.app"]
    assert host_ports(container) == {process.http_port: process.http_port}


# -- the servers, as in the native runtime


@each(EVERYTHING)
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    host_ports(EVERYTHING[name])


def test_the_servers_are_published_on_the_native_ports() -> None:
    ports = Ports.default()
    assert host_ports(STACK["postgres"]) == {5432: ports.postgres}
    assert host_ports(STACK["redis"]) == {6379: ports.redis}
    assert host_ports(STACK["rabbitmq"]) == {5672: ports.rabbit, 15672: ports.rabbit_management}
    assert host_ports(STACK["kafka"]) == {9092: ports.kafka}
    assert STACK["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].endswith(f"127.0.0.1:{ports.kafka}")
    assert host_ports(STACK["mail"]) == {2525: ports.mail}
    assert host_ports(STACK["objects"]) == {8080: ports.objects}
    assert host_ports(STACK["jaeger"]) == {4318: 4318, 16686: 16686}


def test_postgres_has_the_native_settings() -> None:
    options = dict(option.removeprefix("-c").split("=") for option in STACK["postgres"]["command"][1:])
    native = native_settings(postgres._SETTINGS, "=")
    # Where it listens and logs, and how it takes passwords, is the image's business.
    for key in [key for key in native if re.match(r"listen_|unix_|password_|log_|logging_", key)]:
        del native[key]
    assert options == native
    assert options["track_commit_timestamp"] == "on"


def test_every_service_has_a_database() -> None:
    script = COMPOSE / "create-databases.sh"
    match = re.search(r"^for database in (.*); do$", script.read_text(), re.MULTILINE)
    assert match
    assert {*match[1].split()} == {*SERVICES}
    assert os.access(script, os.X_OK), "the image would source it instead of running it"


def test_redis_has_the_native_limits() -> None:
    native = native_settings(redis.SETTINGS, " ")
    command = STACK["redis"]["command"]
    given = {key.removeprefix("--"): value for key, value in zip(command[1::2], command[2::2], strict=True)}
    for key in ("save", "appendonly", "maxmemory", "maxmemory-policy"):
        assert given[key] == native[key]


def test_rabbitmq_has_the_native_settings() -> None:
    lines = [line for line in (COMPOSE / "rabbitmq.conf").read_text().splitlines() if line[0] != "#"]
    given = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    assert given.pop("total_memory_available_override_value") == "2GB"
    assert STACK["rabbitmq"]["mem_limit"] == "2g"
    native = native_settings(rabbit._SETTINGS, "=")
    # Users come from the environment; the image logs to its output.
    for key in [
        key for key in native if re.match(r"default_|loopback_|management\.tcp|log\.(console|file)$", key)
    ]:
        del native[key]
    assert given == native


def test_the_object_storage_has_the_native_settings_and_the_keys_and_the_bucket_of_the_services() -> None:
    storage, told = STACK["objects"]["environment"], STACK["notification"]["environment"]
    native = native_settings(objects.SETTINGS, "=")
    assert storage["S3PROXY_AUTHORIZATION"] == native["s3proxy.authorization"]
    assert storage["JCLOUDS_PROVIDER"] == native["jclouds.provider"]
    assert storage["S3PROXY_V4_MAX_NON_CHUNKED_REQ_SIZE"] == objects.REQUEST_BYTES_MAX == OBJECT_BYTES_MAX
    assert storage["S3PROXY_JAVA_OPTS"] == f"-Xmx{objects.HEAP}"
    assert storage["S3PROXY_IDENTITY"] == told["TANDEM_OBJECT_STORE_ACCESS_KEY"]
    assert storage["S3PROXY_CREDENTIAL"] == told["TANDEM_OBJECT_STORE_SECRET_KEY"]
    [volume] = STACK["objects"]["volumes"]
    bucket = interpolated(told["TANDEM_OBJECT_STORE_BUCKET"])
    assert volume.partition(":")[2] == f"{storage['JCLOUDS_FILESYSTEM_BASEDIR']}/{bucket}"


def kafka_properties(container: dict[str, Any]) -> dict[str, str]:
    """As the image makes them: KAFKA_NODE_ID is node.id."""
    own = {key: str(value) for key, value in container["environment"].items() if key != "KAFKA_HEAP_OPTS"}
    return {key.removeprefix("KAFKA_").lower().replace("_", "."): value for key, value in own.items()}


def test_kafka_has_the_native_settings() -> None:
    given = kafka_properties(STACK["kafka"])
    native = native_settings(kafka._SETTINGS, "=")
    # Two networks, so one name more; and where the data is.
    for key in ("listener.security.protocol.map", "inter.broker.listener.name", "log.dirs"):
        del native[key]
    assert {key: given.get(key) for key in native} == native
    assert f"-Xmx{kafka._HEAP}" in STACK["kafka"]["environment"]["KAFKA_HEAP_OPTS"]


# -- the cluster


def test_the_cluster_replicates_to_three_and_confirms_after_two() -> None:
    for container in CLUSTER.values():
        properties = kafka_properties(container)
        factors = {key: value for key, value in properties.items() if key.endswith("replication.factor")}
        confirmed = {
            key: value for key, value in properties.items() if key.endswith(("min.isr", "min.insync.replicas"))
        }
        assert (len(factors), {*factors.values()}) == (4, {"3"})
        assert (len(confirmed), {*confirmed.values()}) == (3, {"2"})
        assert properties["unclean.leader.election.enable"] == "false"
        assert properties["auto.create.topics.enable"] == "false"


def test_the_nodes_of_the_cluster_know_each_other() -> None:
    voters = ",".join(
        f"{container['environment']['KAFKA_NODE_ID']}@{name}:9093" for name, container in CLUSTER.items()
    )
    assert len(CLUSTER) == 3
    for container in CLUSTER.values():
        assert container["environment"]["KAFKA_CONTROLLER_QUORUM_VOTERS"] == voters
    assert len({container["environment"]["CLUSTER_ID"] for container in CLUSTER.values()}) == 1
    assert len({container["volumes"][0] for container in CLUSTER.values()}) == 3


def test_the_cluster_says_how_to_point_tandem_at_it() -> None:
    published = [host_ports(container)[9092] for container in CLUSTER.values()]
    for port, container in zip(published, CLUSTER.values(), strict=True):
        assert container["environment"]["KAFKA_ADVERTISED_LISTENERS"].endswith(f",HOST://127.0.0.1:{port}")
    head = CLUSTER_FILE.read_text().partition("name:")[0]
    assert f"TANDEM_KAFKA_BOOTSTRAP={','.join(f'127.0.0.1:{port}' for port in published)}" in head
    assert "TANDEM_KAFKA_REPLICATION_FACTOR=3" in head
    assert "TANDEM_KAFKA_MIN_INSYNC_REPLICAS=2" in head


def test_the_nodes_of_the_rabbitmq_cluster_know_each_other_and_have_the_settings_of_one() -> None:
    assert len(RABBIT_CLUSTER) == 3
    probe = STACK["rabbitmq"]["healthcheck"]
    assert all(container["healthcheck"] == probe for container in RABBIT_CLUSTER.values())
    formation = (COMPOSE / "rabbitmq-cluster.conf").read_text()
    assert "\nconsumer_disconnected_timeout = 5000\n" in formation, "a minute of silence when a node is lost"
    for name, container in RABBIT_CLUSTER.items():
        assert container["hostname"] == name
        assert f"= rabbit@{name}\n" in formation
        mounted = [volume.split(":")[0] for volume in container["volumes"]]
        assert mounted[1:] == ["./compose/rabbitmq.conf", "./compose/rabbitmq-cluster.conf"]
        assert all((DEPLOY / place).is_file() for place in mounted[1:])
    assert len({container["volumes"][0] for container in RABBIT_CLUSTER.values()}) == 3
    assert len({container["environment"]["RABBITMQ_ERLANG_COOKIE"] for container in RABBIT_CLUSTER.values()}) == 1


def test_the_rabbitmq_cluster_says_how_to_point_tandem_at_it() -> None:
    published = [host_ports(container)[5672] for container in RABBIT_CLUSTER.values()]
    urls = ",".join(f"amqp://tandem:tandem@127.0.0.1:{port}/" for port in published)
    assert f"TANDEM_RABBIT_URL={urls}\n" in RABBIT_CLUSTER_FILE.read_text().partition("name:")[0]
    assert len({port for container in EVERYTHING.values() for port in host_ports(container).values()}) == sum(
        len(host_ports(container)) for container in EVERYTHING.values()
    )
