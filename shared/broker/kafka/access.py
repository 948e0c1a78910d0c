"""Where Kafka is and how it is reached: what every client is told, and nothing else about it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from shared.errors import ConfigurationError
from shared.setting_values import parts
from shared.settings import Settings

_BY_PASSWORD: Mapping[str, type[SASLPlaintext | SASLScram256 | SASLScram512]] = {
    "PLAIN": SASLPlaintext,
    "SCRAM-SHA-256": SASLScram256,
    "SCRAM-SHA-512": SASLScram512,
}


def servers_of(settings: Settings) -> list[str]:
    """Each as `host:port`."""
    return parts(settings.kafka_bootstrap or "")


def security_of(settings: Settings) -> BaseSecurity | None:
    """TLS and the account, as FastStream takes them; None without either. Raises `ConfigurationError`."""
    context = _tls(settings.broker_ca_file) if settings.kafka_tls else None
    if settings.kafka_user is None or settings.kafka_password is None:
        return BaseSecurity(context) if context else None
    kind = _BY_PASSWORD[settings.kafka_sasl_mechanism]
    return kind(settings.kafka_user, settings.kafka_password.get_secret_value(), context)


def connection_options(settings: Settings) -> dict[str, Any]:
    """Servers, TLS and the account, as aiokafka takes them. Raises `ConfigurationError`."""
    options: dict[str, Any] = {"bootstrap_servers": servers_of(settings)}
    security = security_of(settings)
    if security is None:
        return options
    channel = "SSL" if security.use_ssl else "PLAINTEXT"
    if isinstance(security, SASLPlaintext | SASLScram256 | SASLScram512):
        channel = f"SASL_{channel}"
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.password,
        }
    return options | {"security_protocol": channel, "ssl_context": security.ssl_context}


def _tls(authorities: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:  # also of what is no certificate
        raise ConfigurationError(f"TANDEM_BROKER_CA_FILE {authorities} cannot be used: {error}") from error
