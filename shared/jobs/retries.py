"""What becomes of a step whose handler raised: another attempt after a while, or a failure. Pure.

A step has `times` retries besides its first attempt; they wait `initial_s`, then twice as long each time, at most
`max_s`, with equal jitter (`shared.backoff`).
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.backoff import Draw, backoff_s
from shared.errors import PermanentError

WAIT_MAX_S = 600.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and for which exceptions a step is tried again.

    Raises `ValueError` for fewer than 0 times, for no wait at all and for waits over `WAIT_MAX_S`.
    """

    times: int = 3
    initial_s: float = 1.0
    max_s: float = WAIT_MAX_S
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if self.times < 0:
            raise ValueError("times must be 0 or more")
        if not 0 < self.initial_s <= self.max_s <= WAIT_MAX_S:
            raise ValueError(f"initial_s and max_s must be above 0, in this order, and at most {WAIT_MAX_S:g}")


def may_pass(retry: Retry, error: BaseException) -> bool:
    """Whether another attempt may go better; never what is permanent (`PermanentError`, `Reject` among them)."""
    return isinstance(error, retry.on) and not isinstance(error, PermanentError)


def retry_wait_s(retry: Retry, error: BaseException, attempt: int, draw: Draw) -> float | None:
    """As `next_wait_s`; None, too, for what may not pass."""
    return next_wait_s(retry, attempt, draw) if may_pass(retry, error) else None


def next_wait_s(retry: Retry, attempt: int, draw: Draw) -> float | None:
    """Seconds until the next attempt after number `attempt` (1 is the first); None when it was the last."""
    if attempt > retry.times:
        return None
    return backoff_s(attempt - 1, retry.initial_s, retry.max_s, draw)
