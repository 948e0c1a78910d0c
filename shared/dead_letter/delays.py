"""How long a failed event waits before it comes again, told in its headers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from shared.backoff import backoff_s
from shared.broker import Delivery
from shared.dead_letter.headers import (
    AGE_S,
    DELAY_S,
    DELAYS,
    DUE_AT,
    FIRST_FAILED_AT,
    KIND,
    Kind,
    count,
    moment,
    seconds,
)
from shared.errors import DelayError, PermanentError, TransientError
from shared.settings import Settings


class Delays:
    """Which failures delay an event, and for how long.

    A transient failure waits `delay_initial_s`, twice as long each time up to `delay_max_s`, with jitter (half to
    all of it); after `delays_max` times, or `delay_total_max_s` after the first failure, it counts as failed. A
    `DelayError` waits as long as it says and is not counted, but no longer than events live (`message_ttl_s`).
    """

    def __init__(self, settings: Settings, transient: tuple[type[Exception], ...]) -> None:
        self._settings = settings
        self._transient: tuple[type[Exception], ...] = (TransientError, *transient)

    def headers(self, delivery: Delivery, error: Exception) -> dict[str, str]:
        """What makes a dead letter a delayed one; nothing if it has failed."""
        if isinstance(error, PermanentError) or not isinstance(error, self._transient):
            return {}
        settings, counted = self._settings, not isinstance(error, DelayError)
        delays = count(delivery.headers, DELAYS)
        longest_s = settings.delay_total_max_s if counted else settings.message_ttl_s
        if _age_s(delivery.headers) >= longest_s:
            return {}
        if counted and delays >= settings.delays_max:
            return {}
        if isinstance(error, DelayError):
            wait_s = error.delay_s
        else:
            wait_s = backoff_s(delays, settings.delay_initial_s, settings.delay_max_s, random.random)
        wait_s = max(0.0, min(wait_s, longest_s))
        return {
            KIND: Kind.DELAYED.value,
            DELAY_S: f"{wait_s:.3f}",
            DUE_AT: (datetime.now(UTC) + timedelta(seconds=wait_s)).isoformat(),
            DELAYS: str(delays + counted),
        }


def _age_s(headers: Mapping[str, str]) -> float:
    age_s = seconds(headers, AGE_S)
    if age_s is not None:
        return age_s
    first = moment(headers, FIRST_FAILED_AT)
    return 0.0 if first is None else (datetime.now(UTC) - first).total_seconds()
