"""What every Tandem service is built from: the broker seam, the consumer pipeline and the outbox relay."""

__version__ = "0.1.0"
"""As in pyproject.toml; what the OpenAPI and AsyncAPI documents name."""

__all__ = [
    "backoff",
    "broker",
    "consuming",
    "database",
    "dead_letter",
    "envelope",
    "errors",
    "event",
    "failpoints",
    "garbage",
    "http",
    "jobs",
    "migrate",
    "migrations",
    "money",
    "outside",
    "process",
    "publishing",
    "reply",
    "setting_names",
    "setting_values",
    "settings",
    "telemetry",
]
