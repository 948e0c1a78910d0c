"""Settings: frozen, checked once, every contradiction named; nothing half-configured starts."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from pydantic import ValidationError

from deploy.paths import REPOSITORY
from deploy.topology import DEAD_LETTER_SUBSCRIPTIONS
from services.notification.app import SERVICE as NOTIFICATION
from shared.errors import ConfigurationError
from shared.process.process import Process
from shared.process.server import run
from shared.setting_names import require_known, require_subscriptions
from shared.settings import Settings
from tests.unit.unserved import unserved

GOOD: dict[str, Any] = {
    "broker": "rabbit",
    "http_port": 8001,
    "postgres_dsn": "postgresql://u:p@127.0.0.1/order",
    "redis_url": "redis://127.0.0.1/0",
    "rabbit_url": "amqp://127.0.0.1/",
}
EXAMPLE = REPOSITORY / "deploy" / "example.env"


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
    assert settings.roles == {"api", "relay", "consumer", "worker"}


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
        ({"worker_beat_limit_s": 14}, "TANDEM_WORKER_BEAT_LIMIT_S"),
        ({"worker_slots": "reports=0"}, "TANDEM_WORKER_SLOTS"),
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
        ({"message_ttl_s": 90 * 86_400}, "TANDEM_MESSAGE_TTL_S"),
        ({"dead_letter_ttl_s": 4_294_968}, "TANDEM_DEAD_LETTER_TTL_S"),
        ({"message_ttl_s": 0.0005}, "TANDEM_MESSAGE_TTL_S"),
        ({"dead_letter_ttl_s": 0.0005}, "TANDEM_DEAD_LETTER_TTL_S"),
        ({"claim_done_s": 0.0005}, "TANDEM_CLAIM_DONE_S"),
        ({"handler_timeout_s": 0.0005}, "TANDEM_HANDLER_TIMEOUT_S"),
        ({"inbox_retention_s": 1e12}, "TANDEM_INBOX_RETENTION_S"),
        ({"kafka_max_poll_interval_s": 1_801}, "TANDEM_KAFKA_MAX_POLL_INTERVAL_S"),
        ({"kafka_session_timeout_s": 1_801}, "TANDEM_KAFKA_SESSION_TIMEOUT_S"),
        ({"process": "a/b"}, "TANDEM_PROCESS"),
        ({"postgres_dsn": "127.0.0.1:5432"}, "TANDEM_POSTGRES_DSN"),
        ({"redis_url": "127.0.0.1:6379"}, "TANDEM_REDIS_URL"),
        ({"rabbit_url": "127.0.0.1:5672"}, "TANDEM_RABBIT_URL"),
        ({"rabbit_url": "amqp://a,http://b"}, "TANDEM_RABBIT_URL"),
        ({"broker": "kafka", "kafka_bootstrap": "kafka://a:9092"}, "TANDEM_KAFKA_BOOTSTRAP"),
        ({"alert_webhook_url": "hooks.example.org"}, "TANDEM_ALERT_WEBHOOK_URL"),
        ({"fraud_amounts": "EUR=0"}, "TANDEM_FRAUD_AMOUNTS"),
        ({"fraud_amounts": "euro=1"}, "TANDEM_FRAUD_AMOUNTS"),
        ({"fraud_review_score": 80}, "TANDEM_FRAUD_REVIEW_SCORE"),
        ({"fraud_reject_score": 101}, "TANDEM_FRAUD_REJECT_SCORE"),
        ({"fraud_threats_url": "ftp://threats.example.org"}, "TANDEM_FRAUD_THREATS_URL"),
        ({"schedules_elsewhere": "report=127.0.0.1:8006"}, "TANDEM_SCHEDULES_ELSEWHERE"),
        ({"object_store_url": "http://a"}, "TANDEM_OBJECT_STORE_SECRET_KEY"),
        ({"object_store_url": "s3://a"}, "TANDEM_OBJECT_STORE_URL"),
        ({"otlp_endpoint": "jaeger:4318"}, "TANDEM_OTLP_ENDPOINT"),
        ({"mail_from": "a@example.org\r\nBcc: b@example.org"}, "TANDEM_MAIL_FROM"),
        ({"rate_limit_per_s": "mail.order=inf"}, "TANDEM_RATE_LIMIT_PER_S"),
        ({"rate_limit_per_s": "mail.order=1,mail.order=9"}, "mail.order is there twice"),
    ],
)
def test_a_bad_setting_is_named_in_one_sentence(changes: dict[str, Any], named: str) -> None:
    sentence = refused(**changes)
    assert named in sentence
    assert "\n" not in sentence


SECONDS = [name for name, field in Settings.model_fields.items() if field.annotation is float]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
@pytest.mark.parametrize("name", SECONDS)
def test_no_number_is_infinite(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TANDEM_{name.upper()}", value)
    assert f"TANDEM_{name.upper()}" in refused()


@pytest.mark.parametrize("broker", ["rabbit", "kafka"])
def test_what_one_broker_cannot_keep_is_refused_on_both_in_the_same_words(broker: str) -> None:
    both = {"broker": broker, "kafka_bootstrap": "127.0.0.1:9092"}
    assert refused(**both, dead_letter_ttl_s=90 * 86_400) == refused(dead_letter_ttl_s=90 * 86_400)
    most = Settings.from_environment(**{**GOOD, **both, "dead_letter_ttl_s": 4_294_967})
    assert int(most.dead_letter_ttl_s * 1_000) < 2**32


@pytest.mark.parametrize("name", sorted(Settings.model_fields.keys() - GOOD.keys()))
def test_what_is_set_and_empty_counts_as_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Settings.from_environment(**GOOD)
    monkeypatch.setenv(f"TANDEM_{name.upper()}", "")
    assert Settings.from_environment(**GOOD) == expected


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TANDEM_BATCHMAX", "TANDEM_BATCH_MAX"),
        ("TANDEM_DELAY_MAXS", "TANDEM_DELAY_MAX_S"),
        ("tandem_batch_max", "TANDEM_BATCH_MAX"),
        ("TANDEM_ALERT_WEBHOOK", "TANDEM_ALERT_WEBHOOK_URL"),
        ("TANDEM_CASHE", "TANDEM_CACHE"),
    ],
)
def test_an_unknown_name_is_refused_with_the_one_that_may_be_meant(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "5")
    assert refused() == f"bad settings: {name} is no setting, did you mean {meant}?"


def test_all_unknown_names_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_QQQQQQ", "1")
    monkeypatch.setenv("TANDEM_BATCHMAX", "")
    assert refused() == (
        "bad settings: TANDEM_BATCHMAX is no setting, did you mean TANDEM_BATCH_MAX?; TANDEM_QQQQQQ is no setting"
    )


def test_every_name_that_the_repository_reads_is_known() -> None:
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=REPOSITORY, text=True).split("\0")
    reading = [name for name in listed if re.match(r"(shared|deploy|Makefile|\.ci|tests/conftest)", name)]
    names = {
        found
        for name in reading
        for found in re.findall(r"TANDEM_[A-Z0-9_]*[A-Z0-9]", (REPOSITORY / name).read_text())
    }
    assert len(names) > 60
    require_known(names, Settings.model_fields)


def test_a_rate_is_limited_of_subscriptions_that_there_are() -> None:
    known = DEAD_LETTER_SUBSCRIPTIONS.split(",")
    require_subscriptions(["mail.order"], known)
    with pytest.raises(
        ConfigurationError, match=r"TANDEM_RATE_LIMIT_PER_S: .* mail\.oder, did you mean mail\.order\?$"
    ):
        require_subscriptions(["mail.oder", "mail.user"], known)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("notification.oder=5", "no subscription notification.oder, did you mean notification.order?"),
        ("notification.order=5,notification.payment=5", "no subscription notification.payment"),
        ("notification.order=5,mail.order=5,order.user=5", None),  # others' are for others to know
    ],
)
def test_a_process_refuses_the_limit_of_a_subscription_that_its_own_subscribers_do_not_have(
    monkeypatch: pytest.MonkeyPatch, limits: str, said: str | None
) -> None:
    monkeypatch.setenv("TANDEM_RATE_LIMIT_PER_S", limits)
    parts = unserved(NOTIFICATION)
    if said is None:
        Process(NOTIFICATION, parts)
        return
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        Process(NOTIFICATION, parts)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TANDEM_BATCHMAX", "5", "TANDEM_BATCHMAX is no setting, did you mean TANDEM_BATCH_MAX?"),
        ("TANDEM_DELAY_MAX_S", "inf", "TANDEM_DELAY_MAX_S: Input should be a finite number"),
        ("TANDEM_RATE_LIMIT_PER_S", "mail.oder=5", "there is no subscription mail.oder, did you mean mail.order?"),
    ],
)
def test_a_process_with_a_bad_setting_says_so_in_one_line_and_ends_with_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str
) -> None:
    monkeypatch.setattr("shared.telemetry.logs.configure", lambda *_: None)  # it is this process's logging
    for field, good in GOOD.items():
        monkeypatch.setenv(f"TANDEM_{field.upper()}", str(good))
    monkeypatch.setenv("TANDEM_SMTP_URL", "smtp://127.0.0.1:1")
    monkeypatch.setenv(name, value)

    assert run(NOTIFICATION) == 78

    told = capsys.readouterr().err
    assert told.startswith("notification: bad settings: ")
    assert told.endswith(f"{said}\n")
    assert told.count("\n") == 1


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
