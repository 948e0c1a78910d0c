"""What the environment says of brokers of one's own is taken out of it, checked, and shown without accounts."""

from __future__ import annotations

import pytest

from experiment.own_brokers import NONE_OWN, ONLY_WHERE, take_from
from experiment.own_brokers.names import on_rabbit
from shared.errors import ConfigurationError
from shared.settings import Settings

SECRET = "hush-hush"
BOTH = {
    "TANDEM_RABBIT_URL": f"amqps://ada:{SECRET}@mq.example.org/shop,amqp://ada:{SECRET}@10.0.0.2:7777/shop",
    "TANDEM_KAFKA_SERVERS": "k1.example.org:9093, k2.example.org:9093",
    "TANDEM_KAFKA_TLS": "true",
    "TANDEM_KAFKA_USER": "ada",
    "TANDEM_KAFKA_PASSWORD": SECRET,
    "TANDEM_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "TANDEM_KAFKA_REPLICATION_FACTOR": "3",
}


def test_an_environment_that_names_none_is_left_alone() -> None:
    environment = {"TANDEM_LOG_LEVEL": "INFO", "TANDEM_KAFKA_USER": "ada", "TANDEM_NO_SUCH_SETTING": "1"}
    before = dict(environment)
    assert take_from(environment) == NONE_OWN
    assert environment == before
    assert NONE_OWN.started == ("rabbit", "kafka")


def test_accounts_are_for_the_services_and_shown_nowhere() -> None:
    environment = {**BOTH, "TANDEM_LOG_LEVEL": "INFO", "PATH": "/bin"}
    own = take_from(environment)
    assert environment == {"TANDEM_LOG_LEVEL": "INFO", "PATH": "/bin"}, "who is started later finds nothing"
    assert own.where == {
        "rabbit": "mq.example.org:5671,10.0.0.2:7777",
        "kafka": "k1.example.org:9093,k2.example.org:9093",
    }
    assert " ".join(each.again for each in own) == (
        "TANDEM_RABBIT_URL=amqps://USER:PASSWORD@mq.example.org:5671/shop "
        "TANDEM_KAFKA_SERVERS=k1.example.org:9093,k2.example.org:9093 TANDEM_KAFKA_TLS=true "
        "TANDEM_KAFKA_USER=USER TANDEM_KAFKA_PASSWORD=PASSWORD TANDEM_KAFKA_SASL_MECHANISM=SCRAM-SHA-512"
    )
    shown = repr(own) + str([each.again for each in own])
    assert SECRET not in shown
    assert own.started == ()
    rabbit, kafka = own.environment("rabbit"), own.environment("kafka")
    assert rabbit["TANDEM_RABBIT_URL"] == BOTH["TANDEM_RABBIT_URL"]
    assert "TANDEM_KAFKA_PASSWORD" not in rabbit, "nobody is told of what it does not use"
    assert kafka["TANDEM_KAFKA_PASSWORD"] == SECRET
    assert kafka["TANDEM_KAFKA_BOOTSTRAP"] == BOTH["TANDEM_KAFKA_SERVERS"]
    assert "TANDEM_KAFKA_SERVERS" not in kafka, "the services know it by another name"


def test_what_a_cluster_needs_is_told_to_both_so_that_they_differ_in_their_broker_alone() -> None:
    own = take_from({name: value for name, value in BOTH.items() if name != "TANDEM_RABBIT_URL"})
    assert own.started == ("rabbit",)
    assert own.environment("rabbit") == {"TANDEM_KAFKA_REPLICATION_FACTOR": "3"}
    differs = {name.removeprefix("TANDEM_").lower() for name in own.environment("kafka")}
    assert differs - {"kafka_replication_factor", "kafka_bootstrap"} <= ONLY_WHERE
    assert set(Settings.model_fields) >= ONLY_WHERE


def test_each_run_has_names_of_its_own_which_begin_as_one_likes() -> None:
    found = [take_from({**BOTH, "TANDEM_BROKER_PREFIX": "team.a."}).by_name["rabbit"].prefix for _ in range(2)]
    assert found[0] != found[1]
    assert all(prefix.startswith("team.a.") for prefix in found)
    exchanges, queues = on_rabbit(found[0])
    assert [name for name in (*exchanges, *queues) if not name.startswith(found[0])] == []
    assert len({*exchanges}) == len(exchanges)
    assert len({*queues}) == len(queues)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"TANDEM_RABBIT_URL": f"amqp://ada:{SECRET}/x@mq:5672/"}, "TANDEM_RABBIT_URL"),
        ({"TANDEM_RABBIT_URL": f"amqp://ada:{SECRET}@mq:port/"}, "TANDEM_RABBIT_URL"),
        ({"TANDEM_RABBIT_URL": f"http://ada:{SECRET}@mq/"}, "TANDEM_RABBIT_URL"),
        ({"TANDEM_KAFKA_SERVERS": f"ada:{SECRET}@k1"}, "TANDEM_KAFKA_BOOTSTRAP"),
        ({"TANDEM_KAFKA_USER": ""}, "TANDEM_KAFKA_PASSWORD"),
        ({"TANDEM_KAFKA_TLS": "perhaps"}, "TANDEM_KAFKA_TLS"),
        ({"TANDEM_BROKER_CA_FILE": "/no/such/file"}, "TANDEM_BROKER_CA_FILE"),
        ({"TANDEM_KAFKA_SERVER": "k1:9092"}, "did you mean TANDEM_KAFKA_SERVERS?"),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence_without_the_password(changes: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        take_from({**BOTH, **changes})
    assert named in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)
