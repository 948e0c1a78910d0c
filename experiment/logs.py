"""What a tool's own process logs: our errors alone, and never between what it prints for its user."""

import logging
import sys

import structlog


def log_errors_alone() -> None:
    """From now on errors of our rooms are lines on the standard error; whatever is less is left out.

    Client libraries log every attempt to reach a server that is still starting. What matters of that becomes an
    error of ours, so that nothing of theirs is shown. Tracebacks come without the values of variables, which would
    hold people's events.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # the one of that moment
    )
