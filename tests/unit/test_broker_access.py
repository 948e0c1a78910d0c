"""How brokers are reached that need TLS, an account or names of one's own: what the clients are told."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from shared.broker import Operation, Subscription, create_broker, destination_name
from shared.broker.kafka import connection_options
from shared.broker.kafka.errors import refusal as kafka_refusal
from shared.broker.kafka.subscriptions import dead_letter_group
from shared.broker.kafka.topics import group_name, reply_topic, topic_of_replies, topics_for
from shared.broker.rabbit import names_for, urls_of
from shared.broker.rabbit.errors import refusal as rabbit_refusal
from shared.broker.rabbit.topology import dead_letter_queue, subscriber_queue
from shared.errors import ConfigurationError, UnavailableError
from shared.event import EventData
from shared.settings import Settings

PREFIX = "team.a-"
SUBSCRIPTION = Subscription(channel="order", subscriber="mail", types=frozenset({"order.paid"}))
ASKED = Subscription(channel="share", subscriber="wallet", types=frozenset({"share.taken"}), answers=True)


class Paid(EventData):
    channel, event_type = "order", "order.paid"


def settings(broker: str, **more: Any) -> Settings:
    return Settings.from_environment(
        **{
            "broker": broker,
            "http_port": 1,
            "postgres_dsn": "postgresql://-",
            "redis_url": "redis://-",
            "rabbit_url": "amqp://-",
            "kafka_bootstrap": "a:1, b:2",
            **more,
        }
    )


def test_every_name_on_kafka_begins_with_the_prefix() -> None:
    told = settings("kafka", broker_prefix=PREFIX)
    names = [topic.name for topic in topics_for(["order"], [SUBSCRIPTION, ASKED], told)]
    names += [topic_of_replies("wallet", told).name, group_name(SUBSCRIPTION, PREFIX)]
    names.append(dead_letter_group("dead-letter", SUBSCRIPTION, PREFIX))
    assert [name for name in names if not name.startswith(PREFIX)] == []
    without = [topic.name for topic in topics_for(["order"], [SUBSCRIPTION, ASKED], settings("kafka"))]
    assert names[: len(without)] == [f"{PREFIX}{name}" for name in without]
    assert reply_topic("wallet", "") == "wallet-replies"


def test_a_topic_is_synced_where_that_is_asked_for_and_as_the_cluster_likes_where_not() -> None:
    for synced, expected in ((True, "1"), (False, None)):
        topics = topics_for(["order"], [SUBSCRIPTION], settings("kafka", kafka_synced=synced))
        assert {topic.topic_configs.get("flush.messages") for topic in topics} == {expected}


def test_every_name_on_rabbitmq_begins_with_the_prefix_and_letters_go_to_the_exchange_that_has_it() -> None:
    told = settings("rabbit", broker_prefix=PREFIX)
    queue, letters = subscriber_queue(SUBSCRIPTION, told), dead_letter_queue(SUBSCRIPTION, told)
    exchanges, queues = names_for(["order"], [SUBSCRIPTION], PREFIX)
    assert queues == [queue.name, letters.name] == [f"{PREFIX}mail.order", f"{PREFIX}mail.order.dlq"]
    assert exchanges == [f"{PREFIX}order.events", f"{PREFIX}order.dlx"]
    assert queue.arguments is not None
    assert queue.arguments["x-dead-letter-exchange"] == exchanges[1]
    assert subscriber_queue(ASKED, told).name.startswith(PREFIX)


@pytest.mark.parametrize("broker", ["rabbit", "kafka"])
def test_the_asyncapi_document_names_what_is_there(broker: str) -> None:
    for subscriber in (None, "mail"):
        operation = Operation("order", "order.paid", Paid, subscriber)
        document = create_broker(settings(broker, broker_prefix=PREFIX), "test").asyncapi("m", "1", [operation])
        said = str(document["channels"])
        place = "mail.order" if subscriber and broker == "rabbit" else destination_name(broker, "order")
        assert f"'{PREFIX}{place}'" in said
        assert f"'{place}'" not in said


@pytest.mark.parametrize("prefix", ["no-end", "-", "a b-", "ä-", f"{'x' * 60}-"])
def test_a_prefix_that_would_run_into_the_name_or_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="TANDEM_BROKER_PREFIX"):
        settings("rabbit", broker_prefix=prefix)


def test_kafka_is_reached_plainly_unless_said() -> None:
    assert connection_options(settings("kafka")) == {"bootstrap_servers": ["a:1", "b:2"]}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("mechanism", [None, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_kafka_is_told_who_asks_and_whether_by_tls(mechanism: str | None, *, tls: bool) -> None:
    account = {"kafka_user": "ada", "kafka_password": "secret", "kafka_sasl_mechanism": mechanism}
    found = connection_options(settings("kafka", kafka_tls=tls, **(account if mechanism else {})))
    ways = {(False, False): None, (False, True): "SSL", (True, False): "SASL_PLAINTEXT", (True, True): "SASL_SSL"}
    assert found.get("security_protocol") == ways[bool(mechanism), tls]
    assert isinstance(found.get("ssl_context"), ssl.SSLContext) == tls
    if mechanism:
        assert found["sasl_mechanism"] == mechanism
        assert (found["sasl_plain_username"], found["sasl_plain_password"]) == ("ada", "secret")


def test_tls_checks_certificate_and_host() -> None:
    context = connection_options(settings("kafka", kafka_tls=True))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_an_account_without_password_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="TANDEM_KAFKA_USER and TANDEM_KAFKA_PASSWORD"):
        settings("kafka", kafka_user="ada")


def test_authorities_that_are_none_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TANDEM_BROKER_CA_FILE must be a file"):
        settings("kafka", broker_ca_file=tmp_path / "nowhere.pem")
    (tmp_path / "ca.pem").write_text("no certificate")
    told = settings("kafka", kafka_tls=True, broker_ca_file=tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match=r"TANDEM_BROKER_CA_FILE .*ca\.pem cannot be used") as refused:
        connection_options(told)
    assert "\n" not in str(refused.value)


def test_rabbitmq_is_told_the_authorities_with_each_node(tmp_path: Path) -> None:
    (tmp_path / "ca file.pem").touch()
    nodes = "amqps://u:p@a:1/,amqps://u:p@b:2/"
    found = urls_of(settings("rabbit", rabbit_url=nodes, broker_ca_file=tmp_path / "ca file.pem"), name="x")
    assert [(url.host, url.query["cafile"], url.query["name"]) for url in found] == [
        (host, str(tmp_path / "ca file.pem"), "x") for host in ("a", "b")
    ]
    assert "cafile" not in urls_of(settings("rabbit"))[0].query


def test_a_certificate_that_is_not_accepted_stops_a_process_and_one_that_runs_waits() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    wrapped = ConnectionError("as aiormq raises it")
    wrapped.__cause__ = error
    for said in (kafka_refusal(error), rabbit_refusal(wrapped)):
        assert isinstance(said, ConfigurationError)
        assert "certificate is not accepted: unable to get local issuer certificate" in str(said)
    assert isinstance(rabbit_refusal(ConnectionError("refused")), UnavailableError)


def test_a_password_of_kafka_is_not_shown() -> None:
    told = settings("kafka", kafka_user="ada", kafka_password="hush-hush")
    assert "hush-hush" not in repr(told) + str(told.model_dump(mode="json"))
