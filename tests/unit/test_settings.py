"""Settings: frozen, checked once, every contradiction named; nothing half-configured starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deploy.topology import DEAD_LETTER_SUBSCRIPTIONS
from shared.errors import ConfigurationError
from shared.settings import Settings

GOOD: dict[str, Any] = {
    "broker": "rabbit",
    "http_port": 8001,
    "postgres_dsn": "postgresql://u:p@127.0.0.1/order",
    "redis_url": "redis://127.0.0.1/0",
    "rabbit_url": "amqp://127.0.0.1/",
}
EXAMPLE = Path(__file__).parents[2] / "deploy" / "example.env"


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TANDEM_{name.upper()}", raising=False)


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_environment(**{**GOOD, **changes})
    return str(raised.value)


def test_the_defaults_hold_together() -> None:
    settings = Settings.from_environment(**GOOD)
    assert settings.roles == {"api", "relay", "consumer"}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_is_described_in_a_sentence_that_names_its_unit(name: str) -> None:
    said = Settings.model_fields[name].description
    assert said is not None
    assert said.endswith(".")
    assert ". " not in " ".join(said.split()), "more than one sentence"
    if name.endswith("_s"):
        assert "second" in said.lower()


def test_they_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(f"TANDEM_{name.upper()}", str(value))
    monkeypatch.setenv("TANDEM_ROLES", "relay, consumer")
    settings = Settings.from_environment()
    assert settings.roles == {"relay", "consumer"}
    assert settings.http_port == 8001


def test_they_do_not_change() -> None:
    settings = Settings.from_environment(**GOOD)
    with pytest.raises(ValidationError):
        settings.batch_max = 7  # type: ignore[misc]


def test_nothing_set_names_everything_that_is_missing() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_environment()
    for name in ("TANDEM_BROKER", "TANDEM_HTTP_PORT", "TANDEM_POSTGRES_DSN", "TANDEM_REDIS_URL"):
        assert name in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"broker": "nats"}, "TANDEM_BROKER"),
        ({"http_port": "eighty"}, "TANDEM_HTTP_PORT"),
        ({"http_port": 70_000}, "TANDEM_HTTP_PORT"),
        ({"roles": "api,singer"}, "TANDEM_ROLES"),
        ({"roles": ""}, "TANDEM_ROLES"),
        ({"batch_max": 0}, "TANDEM_BATCH_MAX"),
        ({"relay_shards": 3}, "TANDEM_RELAY_SHARDS"),
        ({"handler_timeout_s": -1}, "TANDEM_HANDLER_TIMEOUT_S"),
        ({"kafka_session_timeout_s": 5}, "TANDEM_KAFKA_SESSION_TIMEOUT_S"),
        ({"rabbit_url": None}, "TANDEM_RABBIT_URL"),
        ({"broker": "kafka"}, "TANDEM_KAFKA_BOOTSTRAP"),
        ({"claim_lock_s": 30}, "TANDEM_CLAIM_LOCK_S"),
        ({"heartbeat_ttl_s": 2}, "TANDEM_HEARTBEAT_TTL_S"),
        ({"outage_hold_s": 250}, "TANDEM_OUTAGE_HOLD_S"),
        ({"inbox_retention_s": 7 * 86_400 + 3_599}, "TANDEM_INBOX_RETENTION_S"),
        ({"kafka_min_insync_replicas": 2}, "TANDEM_KAFKA_MIN_INSYNC_REPLICAS"),
        ({"shutdown_grace_s": 121}, "TANDEM_SHUTDOWN_GRACE_S"),
        ({"metrics_interval_s": 31}, "TANDEM_METRICS_INTERVAL_S"),
        ({"rate_limit_per_s": "mail.order=0"}, "TANDEM_RATE_LIMIT_PER_S"),
        ({"smtp_url": "mail.example.org:25"}, "TANDEM_SMTP_URL"),
        ({"smtp_url": "smtp://127.0.0.1:25", "smtp_timeout_s": 25}, "TANDEM_SMTP_TIMEOUT_S"),
        ({"mail_from": "Tandem"}, "TANDEM_MAIL_FROM"),
        ({"no_such_setting": 1}, "NO_SUCH_SETTING"),
    ],
)
def test_a_bad_setting_is_named_in_one_sentence(changes: dict[str, Any], named: str) -> None:
    sentence = refused(**changes)
    assert named in sentence
    assert "\n" not in sentence


def test_several_contradictions_are_told_at_once() -> None:
    sentence = refused(claim_lock_s=1, heartbeat_ttl_s=1)
    assert "TANDEM_CLAIM_LOCK_S" in sentence
    assert "TANDEM_HEARTBEAT_TTL_S" in sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"claim_lock_s": 31, "handler_timeout_s": 30},
        {"heartbeat_ttl_s": 3, "heartbeat_interval_s": 1},
        {"inbox_retention_s": 7 * 86_400 + 3_600},
        {"kafka_replication_factor": 3, "kafka_min_insync_replicas": 2},
        {"broker": "kafka", "kafka_bootstrap": "127.0.0.1:9092", "rabbit_url": None},
    ],
)
def test_what_just_fits_is_accepted(changes: dict[str, Any]) -> None:
    Settings.from_environment(**{**GOOD, **changes})


def test_the_inbox_knows_an_event_for_longer_than_kafka_can_keep_it() -> None:
    kafka_looks_every_s = 300  # log.retention.check.interval.ms
    for retention_s in (7 * 86_400 + 3_600, 8 * 86_400, 60 * 86_400):
        settings = Settings.from_environment(**GOOD, inbox_retention_s=retention_s)
        kept_s = settings.message_ttl_s + settings.kafka_segment_s + kafka_looks_every_s
        assert kept_s < settings.inbox_retention_s


def test_passwords_do_not_reach_the_sentence() -> None:
    assert "hunter2" not in refused(postgres_dsn="postgresql://u:hunter2@127.0.0.1/x", http_port="x")


def test_an_unknown_fail_point_is_refused() -> None:
    assert "TANDEM_FAILPOINTS" in refused(failpoints="pipeline.nowhere=kill")
    assert Settings.from_environment(**GOOD, failpoints="relay.after_publish=kill").failpoints


@pytest.mark.parametrize("limits", ["mail.order", "mail.order=fast", "mail.order=50,mail.user"])
def test_a_rate_is_a_number_for_a_queue(monkeypatch: pytest.MonkeyPatch, limits: str) -> None:
    monkeypatch.setenv("TANDEM_RATE_LIMIT_PER_S", limits)
    assert "TANDEM_RATE_LIMIT_PER_S" in refused()
    monkeypatch.setenv("TANDEM_RATE_LIMIT_PER_S", "mail.order=50, mail.user=2.5")
    assert Settings.from_environment(**GOOD).rate_limit_per_s == {"mail.order": 50, "mail.user": 2.5}


def test_the_example_names_settings_and_subscriptions_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = EXAMPLE.read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert {f"TANDEM_{name.upper()}" for name in Settings.model_fields} >= values.keys()
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment(**GOOD)
    assert settings.rate_limit_per_s["mail.order"] == 50
    assert set(settings.rate_limit_per_s) <= set(DEAD_LETTER_SUBSCRIPTIONS.split(","))
