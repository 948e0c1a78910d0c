"""The caller's settings, checked before anything starts: the same in both runtimes and on both brokers."""

import os
import re
from collections.abc import Mapping

from deploy.topology import DEAD_LETTER_SUBSCRIPTIONS, BrokerName
from shared.errors import ConfigurationError
from shared.setting_names import require_subscriptions
from shared.settings import BROKER_ADDRESSES, Settings

PASSWORDS = tuple(f"TANDEM_{name}_PASSWORD" for name in ("POSTGRES", "REDIS", "RABBIT"))
"""Of the servers in containers; the native runtime makes its own."""

_DECIDED: Mapping[str, object] = {
    "http_port": 1,
    "process": "checked",
    "roles": frozenset({"api", "relay", "consumer", "worker"}),
    "http_host": "127.0.0.1",
    "postgres_dsn": "postgresql://decided-by-the-runtime",
    "redis_url": "redis://decided-by-the-runtime",
    **dict.fromkeys(BROKER_ADDRESSES.values(), "decided-by-the-runtime"),
    "rabbit_url": "amqp://decided-by-the-runtime",
    "kafka_bootstrap": "decided-by-the-runtime:1",
    "otlp_dir": None,
    "dead_letter_subscriptions": (),
    "schedules_elsewhere": {},
}
"""What the runtimes decide, whatever the caller's environment says."""
_MAIL_SERVER = {"smtp_url": "smtp://decided-by-the-runtime"}


def require_good_settings(broker: BrokerName, nodes: int) -> None:
    """Raises `ConfigurationError`, in one sentence that names each, for settings that no service starts with."""
    # The runtimes' own, unless the caller says otherwise; without one no mail is sent.
    mail = {} if "TANDEM_SMTP_URL" in os.environ else _MAIL_SERVER
    settings = Settings.from_environment(**_DECIDED, **mail, broker=broker)
    require_subscriptions(settings.rate_limit_per_s, DEAD_LETTER_SUBSCRIPTIONS.split(","))
    if broker == "kafka" and settings.kafka_replication_factor > nodes:
        raise ConfigurationError(
            f"bad settings: TANDEM_KAFKA_REPLICATION_FACTOR is {settings.kafka_replication_factor}, "
            f"and Kafka has {nodes} node(s)"
        )


def require_good_passwords() -> None:
    """Raises `ConfigurationError` for a password of the containers that an URL could not carry as it is."""
    given = {name: os.environ.get(name) for name in PASSWORDS}
    wrong = [name for name, value in given.items() if value and not re.fullmatch(r"[A-Za-z0-9._~-]+", value)]
    if wrong:
        raise ConfigurationError(f"bad settings: {', '.join(wrong)} may have letters, digits and ._~- only")
