import ast
import configparser
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from alembic.script import ScriptDirectory

from deploy.errors import StartError
from deploy.native.environment import of_children
from deploy.native.install.kafka import new_kafka_id
from deploy.native.ports import Ports
from deploy.native.program import Program, group_config, main_config, script, shutdown_timeout_s
from deploy.native.servers.table import SERVERS_BY_NAME, find, ports_of, process_names, server_of
from deploy.native.service_set import RUNTIME_SETTINGS, environment_of, lay_out, newest_version, programs
from deploy.native.site import Site
from deploy.paths import REPOSITORY
from deploy.topology import BROKERS, PROCESSES, SERVERS, SERVICE_TABLE, SERVICES, SUBSCRIPTIONS
from shared.migrate import configuration
from shared.settings import Settings


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site.open(tmp_path / "with space [1] %d", Ports(25000))


def test_every_process_has_its_own_name_and_port() -> None:
    assert len({row.name for row in PROCESSES}) == len(PROCESSES)
    assert len({row.http_port for row in PROCESSES}) == len(PROCESSES)


def test_every_service_with_an_http_interface_has_one_process_that_serves_it() -> None:
    having = [name for name in SERVICES if any((REPOSITORY / "services" / name).glob("http*"))]
    assert sorted(row.service for row in PROCESSES if row.has_api) == sorted(having)
    assert having


def test_the_first_process_of_a_service_is_the_one_with_its_http_interface() -> None:
    for service in SERVICE_TABLE:
        assert not any(row.has_api for row in service.processes[1:])


def test_every_subscriber_has_a_process_that_consumes() -> None:
    consumers = {row.service for row in PROCESSES if "consumer" in row.roles.split(",")}

    assert {subscriber for subscriber, _ in SUBSCRIPTIONS} | {"dead_letter"} == consumers


def test_leased_steps_have_a_process_of_their_own_where_they_may_keep_its_event_loop_busy() -> None:
    workers = [row for row in PROCESSES if "worker" in row.roles.split(",")]

    # A report's steps compute in children; in the loop they read rows and send a mail. The archive's wait.
    assert {row.name: row.roles for row in workers} == {
        "notification": "api,worker",
        "jobs-worker": "worker",
        "report": "api,consumer,worker",
        "fraud": "api,relay,consumer,worker",
    }


def test_the_containers_run_the_same_processes_on_the_same_ports() -> None:
    compose = yaml.safe_load((REPOSITORY / "deploy/compose/compose.yml").read_text())["services"]

    for row in PROCESSES:
        container = compose[row.name]
        assert container["command"] == ["python", "-m", f"services.{row.service}.app"]
        assert container["ports"] == [f"127.0.0.1:{row.http_port}:{row.http_port}"]
        assert container["environment"]["TANDEM_ROLES"] == row.roles


def test_a_process_is_told_the_chosen_broker_only_and_its_settings_are_valid(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lay_out(site, "kafka", name="", number=0, replicas={}, environment={"TANDEM_BATCH_MAX": "7"})
    environment = environment_of(site, made, made.processes[0])

    assert "TANDEM_KAFKA_BOOTSTRAP" in environment
    assert "TANDEM_RABBIT_URL" not in environment
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert Settings.from_environment().batch_max == 7


def test_the_runtime_owns_the_settings_that_say_where_things_are(site: Site) -> None:
    made = lay_out(site, "rabbit", name="", number=0, replicas={}, environment={})
    decided = {
        key for row in made.processes for key in environment_of(site, made, row) if key.startswith("TANDEM_")
    }

    assert decided - {"TANDEM_LOG_LEVEL"} <= RUNTIME_SETTINGS


def test_two_sets_of_services_share_nothing_but_the_servers(site: Site) -> None:
    first = lay_out(site, "rabbit", name="rabbit", number=0, replicas={}, environment={})
    second = lay_out(site, "kafka", name="kafka", number=1, replicas={}, environment={})

    for attribute in ("name", "http_port"):
        assert not {getattr(row, attribute) for row in first.processes} & {
            getattr(row, attribute) for row in second.processes
        }
    assert not set(first.databases) & set(second.databases)
    own = [environment_of(site, made, made.processes[0])["TANDEM_REDIS_URL"] for made in (first, second)]
    assert own[0] != own[1]


def test_replicas_get_names_and_ports_of_their_own(site: Site) -> None:
    made = lay_out(site, "rabbit", name="", number=0, replicas={"order-consumer": 3}, environment={})

    names = [row.name for row in made.processes if row.process == "order-consumer"]
    assert names == ["order-consumer", "order-consumer-2", "order-consumer-3"]
    assert len({row.http_port for row in made.processes}) == len(made.processes)


def test_an_unknown_process_is_refused_by_name(site: Site) -> None:
    with pytest.raises(KeyError, match="mailer"):
        lay_out(site, "rabbit", name="", number=0, replicas={"mailer": 2}, environment={})


@pytest.mark.parametrize(
    "value",
    [
        '"Shop, Ltd." <shop@example.org>',
        '"O\'Brien" <ob@example.org>',
        'ends in a quote"',
        "100% of %(here)s %% $HOME `id` $(id) \\ ~",
        "a ;b #c, d=e",
        "two\nlines ",
        "Zoë 注文",
        "",
    ],
)
def test_a_program_gets_values_and_words_as_they_are(tmp_path: Path, value: str) -> None:
    directory = tmp_path / 'it\'s a "place" ;#100%'
    directory.mkdir()
    code = "import os, sys; print([os.environ['TANDEM_MAIL_FROM'], sys.argv[1], os.getcwd()])"
    command = [sys.executable, "-c", code, value]
    program = Program("order", command, environment={"TANDEM_MAIL_FROM": value}, directory=directory)
    (tmp_path / "order.sh").write_text(script(program), encoding="utf-8")

    said = subprocess.check_output(["/bin/sh", "order.sh"], cwd=tmp_path, env=of_children(), encoding="utf-8")

    assert ast.literal_eval(said) == [value, value, str(directory)]


def test_what_supervisor_reads_depends_on_no_path_and_no_value(site: Site) -> None:
    value = '100% "quoted" ;#'
    program = Program("order", ["python", value], environment={"TANDEM_MAIL_FROM": value})

    assert group_config("services", [program], 20) == group_config(
        "services", [Program("order", ["other"], directory=site.root)], 20
    )
    pattern = main_config(site).partition("files = ")[2].strip()
    assert fnmatchcase(str(site.programs / "group-services.conf"), pattern)
    assert " " not in pattern


@pytest.mark.parametrize("grace_s", [20, 120])
def test_stopping_may_take_as_long_as_the_services_and_then_the_servers_may(site: Site, grace_s: int) -> None:
    given = {"TANDEM_SHUTDOWN_GRACE_S": str(grace_s)}
    services = programs(site, lay_out(site, "rabbit", name="", number=0, replicas={}, environment=given))
    servers = [Program("postgres", ["postgres"], stop_timeout_s=90), Program("redis", ["redis"], stop_timeout_s=5)]
    for name, members in (("services", services), ("servers", servers)):
        (site.programs / f"group-{name}.conf").write_text(group_config(name, members, 10))

    assert shutdown_timeout_s(site.programs) > grace_s + 90


@pytest.mark.parametrize("given", ["soon", "inf"])
def test_a_grace_period_that_is_no_number_is_refused_in_one_sentence(site: Site, given: str) -> None:
    made = lay_out(site, "rabbit", name="", number=0, replicas={}, environment={"TANDEM_SHUTDOWN_GRACE_S": given})

    with pytest.raises(StartError, match=rf"^TANDEM_SHUTDOWN_GRACE_S must be a number of seconds, not '{given}'$"):
        programs(site, made)


def test_every_server_is_found_by_its_name_and_by_those_of_its_nodes(tmp_path: Path) -> None:
    three = Site.open(tmp_path / "three", Ports(25000, nodes=3))
    for name in SERVERS:
        processes = process_names(three, name)
        assert [server_of(process) for process in processes] == [
            (SERVERS_BY_NAME[name], node) for node in range(1, len(processes) + 1)
        ]
        assert SERVERS_BY_NAME[name].name == name
        assert len(processes) == (3 if name in BROKERS else 1)
    assert find("kafka-order") is None, "a process of the set of services called kafka"


def test_no_two_servers_of_an_instance_listen_on_the_same_port(tmp_path: Path) -> None:
    three = Site.open(tmp_path / "three", Ports(25000, nodes=3))
    taken = [port for name in SERVERS for port in ports_of(three, name).values()]
    assert len(set(taken)) == len(taken)


def test_a_password_outlives_the_instance_since_its_data_keeps_it(tmp_path: Path) -> None:
    from deploy.native.site import write_state

    first = Site.open(tmp_path, Ports(25000))
    write_state(tmp_path, {"password": first.password})

    assert Site.open(tmp_path, Ports(25000)).password == first.password
    assert (tmp_path / "instance.json").stat().st_mode & 0o077 == 0


def test_a_socket_path_stays_within_what_the_kernel_takes(tmp_path: Path) -> None:
    deep = Site.open(tmp_path / ("d" * 120), Ports(25000))

    assert len(str(deep.control_socket)) < 100


def test_a_kafka_cluster_id_never_looks_like_an_option() -> None:
    assert not [made for made in (new_kafka_id() for _ in range(2000)) if made.startswith("-")]


def test_three_nodes_are_all_named_to_the_services_and_hold_three_copies(tmp_path: Path) -> None:
    site = Site.open(tmp_path / "three", Ports(25000, nodes=3))
    rabbit = lay_out(site, "rabbit", name="", number=0, replicas={}, environment={})
    kafka = lay_out(site, "kafka", name="", number=0, replicas={}, environment={})
    urls = environment_of(site, rabbit, rabbit.processes[0])["TANDEM_RABBIT_URL"].split(",")
    assert [int(url.rsplit(":", 1)[1].rstrip("/")) for url in urls] == [
        site.ports.rabbit_node(node)[0] for node in (1, 2, 3)
    ]
    given = environment_of(site, kafka, kafka.processes[0])
    assert len(given["TANDEM_KAFKA_BOOTSTRAP"].split(",")) == 3
    assert (given["TANDEM_KAFKA_REPLICATION_FACTOR"], given["TANDEM_KAFKA_MIN_INSYNC_REPLICAS"]) == ("3", "2")


def test_behind_proxies_the_services_are_told_the_proxies_ports(tmp_path: Path) -> None:
    site = Site.open(tmp_path / "proxied", Ports(25000, proxied=True))
    made = lay_out(site, "kafka", name="", number=0, replicas={}, environment={})
    given = environment_of(site, made, made.processes[0])
    assert given["TANDEM_KAFKA_BOOTSTRAP"].endswith(f":{site.ports.proxies['kafka'][0]}")
    assert f":{site.ports.proxies['postgres'][0]}/" in given["TANDEM_POSTGRES_DSN"]


def test_what_is_not_restarted_when_it_ends_is_not_when_it_ends_at_once_either() -> None:
    """Supervisor starts again what ends within `startsecs`, whatever else it is told, and forgets how it ended."""
    read = configparser.RawConfigParser()
    read.read_string(group_config("g", [Program("kept", ["x"]), Program("extra", ["x"], autorestart=False)], 10))

    assert (read["program:kept"]["startsecs"], read["program:extra"]["startsecs"]) == ("1", "0")


@pytest.mark.parametrize("service", SERVICES)
def test_the_newest_migration_by_its_name_is_the_one_that_alembic_would_go_to(service: str) -> None:
    """A database at that version is left alone, without a word to Alembic."""
    assert newest_version(service) == ScriptDirectory.from_config(configuration(service)).get_current_head()
