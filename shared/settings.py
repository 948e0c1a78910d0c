"""Settings: frozen, read once from the environment (prefix `TANDEM_`), and the relations between them.

A process reads them once, as it starts; nothing else reads the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import ConfigurationError
from shared.setting_names import PREFIX, require_known
from shared.setting_values import (
    FEE_BAND,
    CurrencyCode,
    KeptS,
    MillisecondS,
    MinorUnits,
    Queue,
    QueueName,
    Rate,
    Score,
    Seconds,
    Slots,
    is_address,
    is_http,
    known_fail_points,
    pairs,
    parts,
    split,
)

BrokerName = Literal["rabbit", "kafka"]
Role = Literal["api", "relay", "consumer", "worker"]
BROKER_ADDRESSES = {"rabbit": "rabbit_url", "kafka": "kafka_bootstrap"}
"""Which setting says where each broker is."""
_SEGMENT_MAX_S = 43_200.0
_OUTLIVES_MIN_S = 3_600.0
"""By how much the inbox must outlive events: Kafka fills a segment in half of it (`kafka_segment_s`), and looks
for what to delete every five minutes."""


class Settings(BaseSettings):
    """Everything that a process can be told, each by `TANDEM_` and its name in capitals.

    Times are in the unit that ends the name. The sentence under each is its line in the reference of settings. The
    class is as long as the list: one place, so that relations between any two can be checked.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    broker: BrokerName
    """The broker that events go through."""
    roles: Annotated[frozenset[Role], NoDecode, BeforeValidator(split)] = frozenset(
        {"api", "relay", "consumer", "worker"}
    )
    """What this process does, separated by commas: `api` serves the service's HTTP, `relay` publishes its outbox,
    `consumer` runs its subscriptions, `worker` the leased steps of its jobs."""
    process: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    """What this process is called in telemetry and to the servers; unset, the service's name and its roles."""
    http_host: str = "127.0.0.1"
    """The address on which HTTP is served: the probes and metrics of every process, and the API of one with the
    role `api`."""
    http_port: Annotated[int, Field(ge=1, le=65_535)]
    """The port on which HTTP is served."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe lines that are logged."""

    postgres_dsn: str
    """The service's own database, as `postgresql://user:password@host:port/database`."""
    postgres_pool_max: Annotated[int, Field(ge=1, le=100)] = 10
    """The most connections to PostgreSQL in this process's pool, and in one of HTTP's own where the process also
    has the role `consumer` or `worker`; each relay shard has one besides, and a worker two."""
    postgres_timeout_s: Seconds = 10.0
    """Seconds that connecting to PostgreSQL, a statement, or the wait for a free connection may take."""
    redis_url: str
    """The Redis that holds the claims, as `redis://host:port/database`."""
    redis_timeout_s: Seconds = 2.0
    """Seconds that connecting to Redis or a command may take."""
    rabbit_url: str | None = None
    """RabbitMQ, as `amqp://user:password@host:port/`: of one node, or of several separated by commas, of which the
    next is tried when one is gone."""
    kafka_bootstrap: str | None = None
    """Kafka's brokers, as `host:port` separated by commas."""
    kafka_replication_factor: Annotated[int, Field(ge=1, le=100)] = 1
    """How many of Kafka's brokers hold a copy of each topic that is created."""
    kafka_min_insync_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """How many of those copies must have an event before it counts as published."""
    kafka_synced: bool = False
    """Whether Kafka has an event on the disk, and not only in its machine's memory, before it counts as published;
    RabbitMQ's quorum queues have it there."""
    kafka_compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = "lz4"
    """How events are packed on their way to Kafka, and there; RabbitMQ keeps them as they are."""
    kafka_tls: bool = False
    """Whether Kafka is reached by TLS; RabbitMQ is where its URL begins with `amqps://`."""
    kafka_user: str | None = None
    """Who this process is to Kafka (SASL); unset, nobody."""
    kafka_password: SecretStr | None = None
    """The password that belongs to it."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How that password is shown to Kafka."""
    broker_ca_file: Path | None = None
    """The authorities, as a file of PEM, by which the certificate of a broker that is reached by TLS is checked;
    unset, those of this machine."""
    broker_prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9.-]{0,58}[.-])?$")] = ""
    """What the names of all exchanges, queues, topics and groups begin with, ended by `.` or `-`, on a broker that
    others use, too; the same for every process, and not in its telemetry."""

    connect_timeout_s: Seconds = 20.0
    """Seconds that connecting to the broker, declaring, or subscribing may take before it is tried again."""
    publish_timeout_s: Seconds = 15.0
    """Seconds after which events that the broker has not confirmed count as unpublished and are sent again."""
    shutdown_grace_s: Annotated[float, Field(gt=0, le=120)] = 20.0
    """Seconds that a process which was told to stop has for what is in flight."""

    rate_limit_per_s: Annotated[Mapping[Queue, Rate], NoDecode, BeforeValidator(pairs)] = {}
    """The most events per second that a subscription takes, such as `mail.order=50,mail.user=20`; one that is not
    named takes what it can."""
    batch_max: Annotated[int, Field(ge=1, le=10_000)] = 500
    """The most deliveries that a subscription handles in one transaction."""
    transactions_max: Annotated[int, Field(ge=1, le=100)] = 4
    """The most transactions of a subscription that run at once, events of one key in order, where
    `TANDEM_BATCH_MAX` makes them small; half of `TANDEM_POSTGRES_POOL_MAX` is never exceeded."""
    handler_timeout_s: MillisecondS = 30.0
    """Seconds that a batch's transaction, with all its handlers, may take."""
    handler_attempts_max: Annotated[int, Field(ge=1, le=10)] = 3
    """How often an event is tried, with short waits between, before it is delayed or put aside."""
    deliveries_max: Annotated[int, Field(ge=1, le=100)] = 5
    """How often an event may be delivered without ever being finished; then it counts as what ends its consumer,
    and is put aside."""
    retry_wait_initial_s: Seconds = 0.05
    """Seconds, at most, before the first short retry; twice as many before each further one."""
    retry_wait_max_s: Seconds = 1.0
    """The most seconds between two short retries."""
    handler_retry_max_s: Seconds = 10.0
    """Seconds after an event was first tried, later than which no short retry of it begins."""
    delay_initial_s: Seconds = 2.0
    """Seconds, at most, that an event waits which failed but may pass later; twice as many each further time."""
    delay_max_s: Seconds = 60.0
    """The most seconds of one such wait."""
    delays_max: Annotated[int, Field(ge=0, le=100)] = 10
    """How often an event may wait like this before it counts as failed."""
    delay_total_max_s: Seconds = 3_600.0
    """Seconds from an event's first failure after which it waits no more and counts as failed."""
    outage_hold_s: Seconds = 60.0
    """Seconds that a batch waits for a server that is away before it goes back to the broker."""

    dead_letter_subscriptions: Annotated[tuple[Queue, ...], NoDecode, BeforeValidator(split)] = ()
    """Whose dead letters the dead-letter service keeps, as `subscriber.channel` separated by commas."""
    redrive_interval_s: Seconds = 300.0
    """Seconds between two looks for failed letters that are due to be given back."""
    redrive_poll_interval_s: Seconds = 0.5
    """Seconds between two looks for delayed events that are due, and for redrives that somebody asked for."""
    redrive_attempts_max: Annotated[int, Field(ge=0, le=100)] = 5
    """How often the schedule gives a letter back before it is parked."""
    redrive_backoff_initial_s: Seconds = 300.0
    """Seconds, at most, before a failed letter is first given back; twice as many before each further time."""
    redrive_backoff_max_s: Seconds = 6 * 3_600.0
    """The most seconds before a failed letter is given back again."""
    redrive_answer_timeout_s: Seconds = 600.0
    """Seconds without word of a letter that was given back after which that counts as a failure; twice as many
    each further time."""
    alert_interval_s: Seconds = 3_600.0
    """Seconds after an alert in which the same cause raises none."""
    alert_webhook_url: str | None = None
    """Where each alert is posted to, as JSON."""
    alert_mail_to: str = ""
    """The address that each alert is mailed to."""

    worker_slots: Annotated[Mapping[QueueName, Slots], NoDecode, BeforeValidator(pairs)] = {
        "io": 50,
        "fraud": 4,
        "batch": 4,
        "reports": 1,
    }
    """How many leased steps of a queue a worker runs at once, such as `io=50,reports=1`."""
    worker_slots_default: Slots = 10
    """The same for queues that are not named there."""
    queue_rate_per_s: Annotated[Mapping[QueueName, Rate], NoDecode, BeforeValidator(pairs)] = {}
    """The most leased steps of a queue that begin in a second, over all workers, such as `mail=20`; of one that is
    not named, as many as there are slots."""
    worker_children_max: Annotated[int, Field(ge=1, le=100)] = 4
    """The most child processes of a worker, in which steps run that compute or block."""
    child_steps_max: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """After so many steps a child process is replaced by a new one."""
    child_rss_max_mib: Annotated[int, Field(ge=32, le=1_048_576)] = 300
    """After a step in which it had more MiB of memory than this, a child process is replaced by a new one."""
    worker_beat_interval_s: Seconds = 5.0
    """Seconds between two signs of life of a worker; by then at the latest a step hears that it is cancelled."""
    worker_beat_limit_s: Seconds = 15.0
    """Seconds without one after which a worker's steps are given to others."""
    worker_poll_interval_s: Seconds = 5.0
    """Seconds between two looks of a worker for steps, where no notification wakes it."""
    job_history_s: Annotated[float, Field(gt=0, le=3_660 * 86_400)] = 30 * 86_400.0
    """Seconds that a job and its steps are kept after its end, or until they are archived where there is an object
    storage; then its id is unknown."""

    claim_lock_s: MillisecondS = 300.0
    """Seconds after which a claim ends whose owner says nothing."""
    claim_done_s: MillisecondS = 86_400.0
    """Seconds that Redis remembers an event as done; after that, the inbox alone does."""
    heartbeat_interval_s: Seconds = 1.0
    """Seconds between two heartbeats of a process."""
    heartbeat_ttl_s: MillisecondS = 4.0
    """Seconds without a heartbeat after which another process may take over the claims."""

    message_ttl_s: KeptS = 7 * 86_400.0
    """Seconds that the broker keeps an event: on RabbitMQ one that waits, on Kafka every one; RabbitMQ takes no
    more than 49 days."""
    dead_letter_ttl_s: KeptS = 30 * 86_400.0
    """Seconds that the broker keeps a dead letter, and the dead-letter service one that is finished; RabbitMQ
    takes no more than 49 days."""
    inbox_retention_s: Annotated[float, Field(gt=0, le=366 * 86_400)] = 8 * 86_400.0
    """Seconds that the inbox remembers an event's effect."""
    kafka_partitions: Annotated[int, Field(ge=1, le=1_000)] = 12
    """The partitions of each topic that is created: so many processes can share a subscription."""
    kafka_max_poll_interval_s: Annotated[float, Field(gt=0, le=1_800)] = 300.0
    """Seconds that a consumer may work on what it fetched before Kafka gives its partitions to another; RabbitMQ
    waits for half an hour, so no more than that goes on both."""
    kafka_session_timeout_s: Annotated[float, Field(ge=6, le=1_800)] = 6.0
    """Seconds without a sign of a consumer after which Kafka gives its partitions to another."""

    relay_batch_max: Annotated[int, Field(ge=1, le=5_000)] = 500
    """The most events that the relay publishes at once; of large ones, no more than make 8 MiB."""
    relay_poll_interval_s: Seconds = 1.0
    """Seconds between two looks of the relay at the outbox, where no notification wakes it."""
    outbox_rows_max: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100_000
    """So many events waiting for the relay make the API turn away requests that change state (503)."""
    relay_shards: Literal[1, 2, 4, 8, 16] = 1
    """Into how many parts an outbox is divided, by key, each with one relay at work; the same for every process of
    a service."""

    smtp_url: str = ""
    """The mail server, as `smtp://[user:password@]host:port`, or `smtps://` for TLS from the start; without one no
    mail is sent."""
    smtp_timeout_s: Seconds = 10.0
    """Seconds that handing one mail to the server may take."""
    breaker_open_s: Seconds = 30.0
    """Seconds that a circuit breaker refuses calls before it tries again."""
    mail_from: str = "Tandem <tandem@localhost>"
    """The sender of every mail."""

    report_mail_to: str = ""
    """The address that the daily sales report is mailed to; without one, it is only made."""
    schedules_elsewhere: Annotated[Mapping[QueueName, str], NoDecode, BeforeValidator(pairs)] = {}
    """The other services that have schedules, as `report=http://127.0.0.1:8006` separated by commas: the jobs
    service's `/schedules` shows theirs beside its own."""
    health_check_job_s: Annotated[int, Field(ge=0, le=86_400)] = 0
    """Seconds between two jobs by which the jobs service shows that jobs run; 0: there are none."""

    fraud_amounts: Annotated[Mapping[CurrencyCode, MinorUnits], NoDecode, BeforeValidator(pairs)] = {
        "EUR": 100_000,
        "USD": 100_000,
        "GBP": 100_000,
        "KRW": 1_500_000,
        "JPY": 150_000,
    }
    """From which amount on an order counts as large, by currency and in its minor unit, such as
    `EUR=100000,KRW=1500000`; from ten times that on as very large."""
    fraud_amount_default: MinorUnits = 100_000
    """The same for currencies that are not named there."""
    fraud_velocity_orders: Annotated[int, Field(ge=1, le=10_000)] = 5
    """So many orders of a user within the window before an order count as many."""
    fraud_velocity_window_s: Annotated[float, Field(gt=0, le=86_400)] = 3_600.0
    """Seconds of that window."""
    fraud_new_user_s: Annotated[float, Field(gt=0, le=366 * 86_400)] = 86_400.0
    """Seconds from the registration on in which a user counts as new."""
    fraud_review_score: Score = 40
    """The score from which on an order is to be reviewed."""
    fraud_reject_score: Score = 80
    """The score from which on an order is to be rejected."""
    fraud_threats_url: str | None = None
    """Where the threat-intelligence list is fetched from every hour; unset, from nowhere, and nobody is listed."""
    fraud_threats_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0
    """Seconds that fetching it may take, from the look-up of the name to the last byte."""

    object_store_url: str | None = None
    """The S3-compatible storage, as `http://host:port` or `https://…`, asked with the bucket in the path; unset,
    nothing is archived, and a job's results have at most 64 KiB."""
    object_store_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = "tandem"
    """The bucket there, which must exist."""
    object_store_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,50}$")] = "us-east-1"
    """The region that requests are signed for; a storage of one's own takes any."""
    object_store_access_key: SecretStr | None = None
    """The access key that requests are signed with."""
    object_store_secret_key: SecretStr | None = None
    """The secret key that belongs to it."""
    object_store_timeout_s: Annotated[float, Field(ge=0.1, le=120)] = 30.0
    """Seconds that an object may take to be stored, or to be read back."""
    archive_after_s: Annotated[float, Field(ge=60, le=3_660 * 86_400)] = 90 * 86_400.0
    """Seconds after which notifications, and jobs from their end on, are moved to the object storage."""

    transfer_delay_s: Annotated[float, Field(ge=0, le=600)] = 0.0
    """Seconds that the wallet's worker waits before each transfer, to try what happens while it is slow; requests
    are answered at once all the same."""
    transfer_fees: Annotated[str, Field(pattern=rf"^{FEE_BAND}(,{FEE_BAND})*$")] = "0:0+0"
    """What a transfer costs, as `AMOUNT:FEE+BASIS_POINTS` separated by commas: from each amount on, so much and so
    many ten-thousandths of the amount, such as `0:0+0,100000:500+25`; all in the currency's minor unit."""
    wallet_admin_password: Annotated[SecretStr, Field(min_length=12, max_length=200)] | None = None
    """The password with which `admin`, the first administrator, signs in at the wallet until it is changed there;
    unset, there is none."""
    wallet_gateway_token: Annotated[SecretStr, Field(min_length=16, max_length=200)] | None = None
    """What a gateway that signs users in itself sends as `X-GATEWAY-TOKEN`, so that the wallet believes its
    `X-USER-ID` without a session of its own; unset, it believes nobody's."""
    session_cookie_secure: bool = False
    """Whether browsers may send the wallet's session over HTTPS only: true wherever it is served by HTTPS."""

    otlp_dir: Path | None = None
    """The directory to which spans and metrics are written as OTLP JSON lines, of each the newest 30 MB of a
    process; unset, they are not written."""
    otlp_endpoint: str | None = None
    """The OTLP/HTTP endpoint to which spans are sent, such as `http://127.0.0.1:4318`; unset, to none."""
    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of traces that is recorded, from 0 to 1; whoever is called follows the caller's choice."""
    metrics_interval_s: Annotated[float, Field(gt=0, le=30)] = 15.0
    """Seconds between two times that metrics are written, and that what is only known by asking (queues, outbox)
    is asked."""

    failpoints: Annotated[str, AfterValidator(known_fail_points)] = ""
    """Where this process is to break, for tests and trials: see `shared/failpoints.py`."""

    @property
    def kafka_segment_s(self) -> float:
        """How long Kafka adds to one segment. It deletes whole segments, so that an event outlives
        `message_ttl_s` by up to this; the inbox must know it for longer."""
        return min(_SEGMENT_MAX_S, (self.inbox_retention_s - self.message_ttl_s) / 2)

    @classmethod
    def from_environment(cls, **overrides: object) -> Self:
        """Raises `ConfigurationError` with one sentence that names every bad setting, and every unknown one."""
        require_known(os.environ, cls.model_fields)
        try:
            return cls(**overrides)  # type: ignore[arg-type]
        except ValidationError as error:
            problems = "; ".join(
                f"{PREFIX}{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
                if item["loc"]
                else item["msg"].removeprefix("Value error, ")
                for item in error.errors()
            )
            raise ConfigurationError(f"bad settings: {problems}") from None

    @model_validator(mode="after")
    def _relations_hold(self) -> Self:
        broken = [rule for rule, holds in relations(self).items() if not holds]
        if broken:
            raise ValueError("; ".join(broken))
        return self


def relations(settings: Settings) -> dict[str, object]:
    """What must hold between settings: each rule as the sentence that names it, true while it is kept."""
    broker_url = BROKER_ADDRESSES[settings.broker]
    rabbit_nodes = parts(settings.rabbit_url or "")
    return {
        f"TANDEM_{broker_url.upper()} must be set when TANDEM_BROKER is {settings.broker}": (
            getattr(settings, broker_url)
        ),
        "TANDEM_POSTGRES_DSN must be postgresql://user:password@host:port/database": (
            re.match(r"postgresql://.", settings.postgres_dsn)
        ),
        "TANDEM_REDIS_URL must be redis://host:port/database or rediss://host:port/database": (
            re.match(r"rediss?://.", settings.redis_url)
        ),
        "TANDEM_RABBIT_URL must be amqp://host:port/ or amqps://host:port/, or several separated by commas": (
            settings.rabbit_url is None
            or (rabbit_nodes and all(re.match(r"amqps?://.", url) for url in rabbit_nodes))
        ),
        "TANDEM_KAFKA_BOOTSTRAP must be host:port, or several separated by commas": (
            settings.kafka_bootstrap is None
            or re.fullmatch(r"[^\s,/]+:\d+(\s*,\s*[^\s,/]+:\d+)*", settings.kafka_bootstrap)
        ),
        "TANDEM_KAFKA_USER and TANDEM_KAFKA_PASSWORD must be set together": (
            (settings.kafka_user is None) == (settings.kafka_password is None)
        ),
        "TANDEM_BROKER_CA_FILE must be a file": (
            settings.broker_ca_file is None or settings.broker_ca_file.is_file()
        ),
        "TANDEM_ALERT_WEBHOOK_URL must begin with http:// or https://": is_http(settings.alert_webhook_url),
        "TANDEM_FRAUD_THREATS_URL must begin with http:// or https://": is_http(settings.fraud_threats_url),
        "TANDEM_FRAUD_REVIEW_SCORE must be below TANDEM_FRAUD_REJECT_SCORE": (
            settings.fraud_review_score < settings.fraud_reject_score
        ),
        "TANDEM_SCHEDULES_ELSEWHERE must be name=http://host:port, or several separated by commas": (
            all(is_http(url) for url in settings.schedules_elsewhere.values())
        ),
        "TANDEM_OBJECT_STORE_URL must begin with http:// or https://": is_http(settings.object_store_url),
        "TANDEM_OBJECT_STORE_ACCESS_KEY and TANDEM_OBJECT_STORE_SECRET_KEY must be set with "
        "TANDEM_OBJECT_STORE_URL": (
            settings.object_store_url is None
            or (settings.object_store_access_key and settings.object_store_secret_key)
        ),
        "TANDEM_OTLP_ENDPOINT must begin with http:// or https://": is_http(settings.otlp_endpoint),
        "TANDEM_CLAIM_LOCK_S must exceed TANDEM_HANDLER_TIMEOUT_S, or a running handler loses its claim": (
            settings.claim_lock_s > settings.handler_timeout_s
        ),
        "TANDEM_HEARTBEAT_TTL_S must be at least three times TANDEM_HEARTBEAT_INTERVAL_S": (
            settings.heartbeat_ttl_s >= 3 * settings.heartbeat_interval_s
        ),
        "TANDEM_WORKER_BEAT_LIMIT_S must be at least three times TANDEM_WORKER_BEAT_INTERVAL_S": (
            settings.worker_beat_limit_s >= 3 * settings.worker_beat_interval_s
        ),
        "TANDEM_OUTAGE_HOLD_S plus TANDEM_HANDLER_RETRY_MAX_S plus twice TANDEM_HANDLER_TIMEOUT_S must stay "
        "under TANDEM_KAFKA_MAX_POLL_INTERVAL_S, or Kafka gives the batch to someone else": (
            settings.outage_hold_s + settings.handler_retry_max_s + 2 * settings.handler_timeout_s
            < settings.kafka_max_poll_interval_s
        ),
        "TANDEM_REDRIVE_BACKOFF_INITIAL_S must not exceed TANDEM_REDRIVE_BACKOFF_MAX_S": (
            settings.redrive_backoff_initial_s <= settings.redrive_backoff_max_s
        ),
        "TANDEM_DELAY_INITIAL_S must not exceed TANDEM_DELAY_MAX_S": (
            settings.delay_initial_s <= settings.delay_max_s
        ),
        "TANDEM_INBOX_RETENTION_S must exceed TANDEM_MESSAGE_TTL_S by an hour, as Kafka deletes late, or an "
        "old redelivery takes effect twice": (
            settings.inbox_retention_s >= settings.message_ttl_s + _OUTLIVES_MIN_S
        ),
        "TANDEM_TRANSFER_DELAY_S must stay 5 s under TANDEM_HANDLER_TIMEOUT_S, or no transfer is ever done": (
            not settings.transfer_delay_s or settings.transfer_delay_s + 5 <= settings.handler_timeout_s
        ),
        "TANDEM_KAFKA_MIN_INSYNC_REPLICAS must not exceed TANDEM_KAFKA_REPLICATION_FACTOR": (
            settings.kafka_min_insync_replicas <= settings.kafka_replication_factor
        ),
        "TANDEM_SMTP_URL must be smtp://host:port or smtps://host:port": (
            not settings.smtp_url or re.match(r"smtps?://([^/@]*@)?[^/@:]+(:\d+)?/?$", settings.smtp_url)
        ),
        "TANDEM_SMTP_TIMEOUT_S must stay under TANDEM_HANDLER_TIMEOUT_S and TANDEM_SHUTDOWN_GRACE_S, or mails "
        "are cut short and sent again": (
            not settings.smtp_url
            or settings.smtp_timeout_s < min(settings.handler_timeout_s, settings.shutdown_grace_s)
        ),
        "TANDEM_MAIL_FROM must be an address": is_address(settings.mail_from),
        "TANDEM_ALERT_MAIL_TO must be an address, and TANDEM_SMTP_URL must be set with it": (
            not settings.alert_mail_to or (is_address(settings.alert_mail_to) and settings.smtp_url)
        ),
        "TANDEM_REPORT_MAIL_TO must be an address": (
            not settings.report_mail_to or is_address(settings.report_mail_to)
        ),
        "TANDEM_ROLES must name at least one role": settings.roles,
    }
