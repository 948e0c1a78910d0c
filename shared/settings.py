"""Settings: frozen, read once from the environment (prefix `TANDEM_`), and the relations between them.

Built in a service's `app.py`; nothing else reads the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared import failpoints
from shared.errors import ConfigurationError

Role = Literal["api", "relay", "consumer"]
Seconds = Annotated[float, Field(gt=0)]
Queue = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*\.[a-z][a-z0-9_-]*$")]
Rate = Annotated[float, Field(ge=1)]


_SEGMENT_MAX_S = 43_200.0
_OUTLIVES_MIN_S = 3_600.0
"""By how much the inbox must outlive events: Kafka fills a segment in half of it (`kafka_segment_s`), and looks
for what to delete every five minutes."""


def _split(value: object) -> object:
    return _parts(value) if isinstance(value, str) else value


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(value: object) -> object:
    """`mail.order=50,mail.user=20` as a mapping."""
    if not isinstance(value, str):
        return value
    return {name.strip(): number for name, _, number in (part.partition("=") for part in _parts(value))}


def _known_fail_points(text: str) -> str:
    failpoints.parse(text)
    return text


class Settings(BaseSettings):
    """Everything that a process can be told. Times are in the unit that ends the name."""

    model_config = SettingsConfigDict(env_prefix="TANDEM_", frozen=True, extra="forbid")

    broker: Literal["rabbit", "kafka"]
    roles: Annotated[frozenset[Role], NoDecode, BeforeValidator(_split)] = frozenset({"api", "relay", "consumer"})
    process: str | None = None
    """What this process is called in telemetry and to the servers; default: service and roles."""
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=1, le=65_535)]
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    postgres_dsn: str
    postgres_pool_max: Annotated[int, Field(ge=1, le=100)] = 10
    postgres_timeout_s: Seconds = 10.0
    redis_url: str
    redis_timeout_s: Seconds = 2.0
    rabbit_url: str | None = None
    """Of one node, or of several separated by commas: the next is tried when one is gone."""
    kafka_bootstrap: str | None = None
    kafka_replication_factor: Annotated[int, Field(ge=1)] = 1
    kafka_min_insync_replicas: Annotated[int, Field(ge=1)] = 1

    connect_timeout_s: Seconds = 20.0
    publish_timeout_s: Seconds = 15.0
    shutdown_grace_s: Annotated[float, Field(gt=0, le=120)] = 20.0

    rate_limit_per_s: Annotated[Mapping[str, Rate], NoDecode, BeforeValidator(_pairs)] = {}
    """Most events per second of a subscription, such as `mail.order=50`; without one it takes what it can."""
    batch_max: Annotated[int, Field(ge=1, le=10_000)] = 500
    handler_timeout_s: Seconds = 30.0
    handler_attempts_max: Annotated[int, Field(ge=1, le=10)] = 3
    deliveries_max: Annotated[int, Field(ge=1, le=100)] = 5
    retry_wait_initial_s: Seconds = 0.05
    retry_wait_max_s: Seconds = 1.0
    handler_retry_max_s: Seconds = 10.0
    """No short retry of an event begins later than this after its first failure."""
    delay_initial_s: Seconds = 2.0
    delay_max_s: Seconds = 60.0
    delays_max: Annotated[int, Field(ge=0, le=100)] = 10
    delay_total_max_s: Seconds = 3_600.0
    outage_hold_s: Seconds = 60.0
    """How long a batch waits for a server that is away before it goes back to the broker."""

    dead_letter_subscriptions: Annotated[tuple[Queue, ...], NoDecode, BeforeValidator(_split)] = ()
    """Whose dead letters the dead-letter service keeps: `notification.order,…` (subscriber and channel)."""
    redrive_interval_s: Seconds = 300.0
    redrive_poll_interval_s: Seconds = 0.5
    """How often it looks for delayed events that are due, and for redrives that somebody asked for."""
    redrive_attempts_max: Annotated[int, Field(ge=0, le=100)] = 5
    redrive_backoff_initial_s: Seconds = 300.0
    redrive_backoff_max_s: Seconds = 6 * 3_600.0
    redrive_answer_timeout_s: Seconds = 600.0
    alert_interval_s: Seconds = 3_600.0
    alert_webhook_url: str | None = None
    alert_mail_to: str = ""

    claim_lock_s: Seconds = 300.0
    claim_done_s: Seconds = 86_400.0
    heartbeat_interval_s: Seconds = 1.0
    heartbeat_ttl_s: Seconds = 4.0

    message_ttl_s: Seconds = 7 * 86_400.0
    dead_letter_ttl_s: Seconds = 30 * 86_400.0
    inbox_retention_s: Seconds = 8 * 86_400.0
    kafka_partitions: Annotated[int, Field(ge=1, le=1_000)] = 12
    kafka_max_poll_interval_s: Seconds = 300.0
    kafka_session_timeout_s: Annotated[float, Field(ge=6)] = 6.0

    relay_batch_max: Annotated[int, Field(ge=1, le=5_000)] = 500
    relay_poll_interval_s: Seconds = 1.0
    outbox_rows_max: Annotated[int, Field(ge=1)] = 100_000
    """With so many events waiting for the relay, requests that change state are turned away (503)."""
    relay_shards: Literal[1, 2, 4, 8, 16] = 1

    smtp_url: str = ""
    """`smtp://[user:password@]host:port`, or `smtps://` for TLS from the start; without one no mail is sent."""
    smtp_timeout_s: Seconds = 10.0
    breaker_open_s: Seconds = 30.0
    mail_from: str = "Tandem <tandem@localhost>"

    otlp_dir: Path | None = None
    otlp_endpoint: str | None = None
    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    metrics_interval_s: Annotated[float, Field(gt=0, le=30)] = 15.0
    """How often metrics are written, and what is only known by asking (queues, outbox) is asked."""

    failpoints: Annotated[str, AfterValidator(_known_fail_points)] = ""
    """Where this process is to break, for tests and trials: see `failpoints.py`."""

    @property
    def kafka_segment_s(self) -> float:
        """How long Kafka adds to one segment. It deletes whole segments, so that an event outlives
        `message_ttl_s` by up to this; the inbox must know it for longer."""
        return min(_SEGMENT_MAX_S, (self.inbox_retention_s - self.message_ttl_s) / 2)

    @classmethod
    def from_environment(cls, **overrides: object) -> Self:
        """Raises `ConfigurationError` with one sentence that names every bad setting."""
        try:
            return cls(**overrides)  # type: ignore[arg-type]
        except ValidationError as error:
            problems = "; ".join(
                f"TANDEM_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
                if item["loc"]
                else item["msg"].removeprefix("Value error, ")
                for item in error.errors()
            )
            raise ConfigurationError(f"bad settings: {problems}") from None

    @model_validator(mode="after")
    def _relations_hold(self) -> Self:
        broker_url = "rabbit_url" if self.broker == "rabbit" else "kafka_bootstrap"
        rules = {
            f"TANDEM_{broker_url.upper()} must be set when TANDEM_BROKER is {self.broker}": getattr(
                self, broker_url
            ),
            "TANDEM_CLAIM_LOCK_S must exceed TANDEM_HANDLER_TIMEOUT_S, or a running handler loses its claim": (
                self.claim_lock_s > self.handler_timeout_s
            ),
            "TANDEM_HEARTBEAT_TTL_S must be at least three times TANDEM_HEARTBEAT_INTERVAL_S": (
                self.heartbeat_ttl_s >= 3 * self.heartbeat_interval_s
            ),
            "TANDEM_OUTAGE_HOLD_S plus TANDEM_HANDLER_RETRY_MAX_S plus twice TANDEM_HANDLER_TIMEOUT_S must stay "
            "under TANDEM_KAFKA_MAX_POLL_INTERVAL_S, or Kafka gives the batch to someone else": (
                self.outage_hold_s + self.handler_retry_max_s + 2 * self.handler_timeout_s
                < self.kafka_max_poll_interval_s
            ),
            "TANDEM_REDRIVE_BACKOFF_INITIAL_S must not exceed TANDEM_REDRIVE_BACKOFF_MAX_S": (
                self.redrive_backoff_initial_s <= self.redrive_backoff_max_s
            ),
            "TANDEM_DELAY_INITIAL_S must not exceed TANDEM_DELAY_MAX_S": self.delay_initial_s <= self.delay_max_s,
            "TANDEM_INBOX_RETENTION_S must exceed TANDEM_MESSAGE_TTL_S by an hour, as Kafka deletes late, or an "
            "old redelivery takes effect twice": self.inbox_retention_s >= self.message_ttl_s + _OUTLIVES_MIN_S,
            "TANDEM_KAFKA_MIN_INSYNC_REPLICAS must not exceed TANDEM_KAFKA_REPLICATION_FACTOR": (
                self.kafka_min_insync_replicas <= self.kafka_replication_factor
            ),
            "TANDEM_SMTP_URL must be smtp://host:port or smtps://host:port": (
                not self.smtp_url or re.match(r"smtps?://([^/@]*@)?[^/@:]+(:\d+)?/?$", self.smtp_url)
            ),
            "TANDEM_SMTP_TIMEOUT_S must stay under TANDEM_HANDLER_TIMEOUT_S and TANDEM_SHUTDOWN_GRACE_S, or mails "
            "are cut short and sent again": (
                not self.smtp_url or self.smtp_timeout_s < min(self.handler_timeout_s, self.shutdown_grace_s)
            ),
            "TANDEM_MAIL_FROM must be an address": "@" in parseaddr(self.mail_from)[1],
            "TANDEM_ALERT_MAIL_TO must be an address, and TANDEM_SMTP_URL must be set with it": (
                not self.alert_mail_to or ("@" in parseaddr(self.alert_mail_to)[1] and self.smtp_url)
            ),
            "TANDEM_ROLES must name at least one role": self.roles,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ValueError("; ".join(broken))
        return self
