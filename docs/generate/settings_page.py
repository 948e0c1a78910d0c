"""The reference of settings, from the settings class: name, default, what is allowed, and the sentence of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from deploy.native.service_set import RUNTIME_SETTINGS
from shared.settings import Settings, relations

_SECTIONS: Final = {
    "broker": "The process",
    "postgres_dsn": "Servers",
    "connect_timeout_s": "Time limits of the process",
    "rate_limit_per_s": "Consuming",
    "dead_letter_subscriptions": "Dead letters, redrive and alerts",
    "worker_slots": "Workers of leased steps, and their child processes",
    "claim_lock_s": "Claims",
    "message_ttl_s": "How long things are kept, and Kafka's own limits",
    "relay_batch_max": "Publishing",
    "smtp_url": "Mail",
    "report_mail_to": "Reports, schedules and jobs",
    "fraud_amounts": "Verdicts on orders",
    "object_store_url": "Object storage and the archive",
    "transfer_delay_s": "The wallet",
    "otlp_dir": "Telemetry",
    "failpoints": "Trials",
}
"""The first setting of each section → its title."""

_TOP = """# Settings

Made by `make docs` from `shared/settings.py`: change it there.

A process reads its settings once, when it starts, from environment variables. A value that is wrong, or that does
not go with another, stops it at once with one sentence that names every such setting, and with exit code 78; so
does a name that begins with `TANDEM_` and is none of these, in capitals. `make up-rabbit` and `make up-kafka`
check the same before they start anything. What is set and empty counts as unset. What one broker cannot do is
refused on both.

A name that ends in `_s` is in seconds. *(runtime)* means that `make up-rabbit` and `make up-kafka` set it; put any
other before the command, as in `TANDEM_LOG_LEVEL=DEBUG make up-rabbit`. `deploy/example.env` is a file of some.
"""
_RELATIONS = """
## What must go together

Checked when a process starts, in these words:
"""
_ROW = "| `{name}` | {default} | {allowed} | {meaning} |"
_HEAD = "\n## {title}\n\n| setting | default | allowed | meaning |\n|---|---|---|---|"


def render() -> str:
    """The whole page, in Markdown."""
    document = Settings.model_json_schema()
    required = frozenset(document["required"])
    lines = [_TOP.rstrip()]
    for field, schema in document["properties"].items():
        if field in _SECTIONS:
            lines.append(_HEAD.format(title=_SECTIONS[field]))
        name = f"TANDEM_{field.upper()}"
        lines.append(
            _ROW.format(
                name=name,
                default="required" if field in required else _default(schema["default"], field),
                allowed=_allowed(schema),
                meaning=_meaning(schema["description"]) + (" *(runtime)*" if name in RUNTIME_SETTINGS else ""),
            )
        )
    lines.append(_RELATIONS.rstrip())
    lines.append("")
    lines += [f"- {_meaning(rule)}." for rule in _rules()]
    return "\n".join(lines) + "\n"


def _rules() -> list[str]:
    """The relations as they are said for each broker; the values do not matter for that."""
    known = {
        "http_port": 1,
        "postgres_dsn": "postgresql://-",
        "redis_url": "redis://-",
        "rabbit_url": "amqp://-",
        "kafka_bootstrap": "-:1",
    }
    rules: dict[str, None] = {}
    for broker in ("rabbit", "kafka"):
        rules |= dict.fromkeys(relations(Settings.model_validate({"broker": broker, **known})))
    return list(rules)


def _meaning(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").removesuffix(".")


def _default(value: Any, field: str) -> str:
    if value in (None, "", [], {}):
        return "unset"
    if isinstance(value, list):
        return f"`{','.join(value)}`"
    if isinstance(value, dict):
        return f"`{','.join(f'{name}={number}' for name, number in value.items())}`"
    if field.endswith("_s") and isinstance(value, float):
        return f"{value:g}{_in_words(value)}" if value < 1e6 else f"{value:.0f}{_in_words(value)}"
    return f"{value:,}" if isinstance(value, int) else f"`{value}`" if isinstance(value, str) else f"{value:g}"


def _in_words(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= length and seconds % length == 0:
            count = int(seconds // length)
            return f" ({count} {unit if count > 1 else unit.removesuffix('s')})"
    return ""


def _allowed(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "items" in schema:
        return "any of " + _allowed(schema["items"]) if "enum" in schema["items"] else "names"
    if "patternProperties" in schema:
        [values] = schema["patternProperties"].values()
        return "name=" + _allowed(values)
    return _range(schema) if schema.get("type") in ("integer", "number") else "text"


def _range(schema: Mapping[str, Any]) -> str:
    high = f"{schema['maximum']:,}" if "maximum" in schema else None
    if "exclusiveMinimum" in schema:
        low = f"over {schema['exclusiveMinimum']}"
        return f"{low}, to {high}" if high else low
    return f"{schema['minimum']:,} to {high}" if high else f"{schema['minimum']:,} or more"
