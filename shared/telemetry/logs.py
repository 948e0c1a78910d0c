"""Logs: one JSON object per line on standard output, with the trace they belong to. No payloads.

    {"event": "process.started", "level": "info", "logger": "shared.process.roles", "service": "order",
     "timestamp": "2026-01-31T12:00:00.000000Z", "trace_id": "…", "span_id": "…"}

`structlog.get_logger(__name__)` and the standard library's loggers end in the same handler.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.telemetry.spans import current_trace_ids

# They log each connection and each retry at INFO; what matters of that, our own modules say.
_CHATTY = ("aiokafka", "aio_pika", "aiormq", "faststream", "httpx", "uvicorn.access", "alembic")


def configure(level: str, service: str) -> None:
    """Send every log line of this process, from `level` upwards, to standard output. Call it once."""

    def add_origin(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        line["service"] = service
        line.pop("color_message", None)  # uvicorn's second copy of its text, for terminals
        line.update(current_trace_ids())
        return line

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
        add_origin,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_to_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in list(logging.root.manager.loggerDict):
        existing = logging.getLogger(name)
        existing.handlers = []  # whoever brought its own handler would print the line twice
        existing.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.captureWarnings(capture=True)


def _to_json(line: dict[str, Any], **_options: Any) -> str:
    # Not every value is JSON, and a string may hold a lone surrogate: a log line must never fail.
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps({key: ascii(value) for key, value in line.items()}).decode()
