"""How a step in a child ends, what it tells on the way, and what is raised in it to stop it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from shared.errors import TandemError, TransientError

SOFT_LIMIT_SIGNAL = signal.SIGUSR1
CANCEL_SIGNAL = signal.SIGUSR2


class SoftTimeLimitError(TandemError):
    """Raised in a step whose soft limit is over: it may clean up, until the hard limit."""


class StepCancelledError(BaseException):
    """Raised in a step that is to stop. No `Exception`, like asyncio's, so that no step goes on by mistake."""


class ResultTooLargeError(TandemError):
    """A step's result is larger than the pipe lets through."""


class ChildStartError(TransientError):
    """No child could be started in time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step says that it is: `current` of `total`, both in its own unit."""

    current: float
    total: float
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """The step returned; `peak_rss_bytes` is the most memory that its process had meanwhile."""

    result: bytes
    peak_rss_bytes: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The step raised: `type` is the exception's full name, `types` those of its classes, the nearest first."""

    type: str
    types: tuple[str, ...]
    message: str
    stack: str
    peak_rss_bytes: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class ChildLost:
    """The child ended, by itself or by us, before the step did.

    `exit_code` is negative for a signal, None where nobody could tell; `begun` is False when the step's code
    never ran.
    """

    exit_code: int | None
    cause: Literal["died", "hard_limit", "cancelled"]
    begun: bool

    def __str__(self) -> str:
        if self.exit_code is None:
            how = "in an unknown way"
        elif self.exit_code < 0:
            how = f"by {signal.Signals(-self.exit_code).name}"
        else:
            how = f"with exit code {self.exit_code}"
        why = {"died": "", "hard_limit": " at the hard time limit", "cancelled": " when it was cancelled"}
        return f"the child ended {how}{why[self.cause]}"


Outcome = Done | Failed | ChildLost
