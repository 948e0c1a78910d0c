"""Circuit breakers round what is outside and may be away (Nygard, *Release It!*).

Written here because none of the kept libraries opens at a *rate* of the last calls with a least number of them:
purgatory, pybreaker, aiobreaker and circuitbreaker count failures in a row, which a service that fails every
second call never has. Retries are the pipeline's, the rate limiter is aiolimiter's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum

import structlog

from shared.errors import DelayError, PermanentError

_log = structlog.get_logger(__name__)

_PROBES = 3
_PROBE_DELAY_S = 1.0


class BreakerState(IntEnum):
    """Whether calls pass; the number is the value of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class CircuitBreaker:
    """Refuses calls for a while after too many of the last ones failed.

    It opens when at least `failures_ratio` of the last `calls` calls failed, once there were `calls_min` of them.
    While open, for `open_s`, calls are refused. Then half-open: up to three calls pass at once, as probes; when
    three have succeeded it closes, when one fails it opens again.
    """

    def __init__(
        self,
        name: str,
        on_change: Callable[[str, BreakerState], None] = lambda _name, _state: None,
        *,
        calls: int = 20,
        calls_min: int = 10,
        failures_ratio: float = 0.5,
        open_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._on_change = on_change
        self._calls_min = calls_min
        self._failures_ratio = failures_ratio
        self._open_s = open_s
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._outcomes: deque[bool] = deque(maxlen=calls)
        self._open_until = 0.0
        self._probes = 0
        self._reason = ""
        on_change(name, self._state)

    @property
    def problem(self) -> str | None:
        """Why calls are refused, for a person; None while they pass."""
        if self._state is BreakerState.CLOSED:
            return None
        return f"circuit breaker {self._state.name.lower().replace('_', '-')}: {self._reason}"

    @property
    def state(self) -> BreakerState:
        """Closed, half-open or open, as of the last call."""
        return self._state

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Count what happens inside: a `PermanentError` is an answer, any other exception a failure.

        Raises `DelayError` when the call is refused. A cancelled call counts as neither.
        """
        self._admit()
        probe = self._state is BreakerState.HALF_OPEN
        self._probes += probe
        try:
            yield
        except PermanentError:
            self._succeeded(probe)
            raise
        except Exception as error:
            self._failed(error)
            raise
        else:
            self._succeeded(probe)
        finally:
            self._probes -= probe

    def _admit(self) -> None:
        remaining_s = self._open_until - self._clock()
        if self._state is BreakerState.OPEN and remaining_s > 0:
            raise DelayError(f"{self.name}: {self.problem}", delay_s=remaining_s)
        if self._state is BreakerState.OPEN:
            self._become(BreakerState.HALF_OPEN)
        if self._state is BreakerState.HALF_OPEN and self._probes >= _PROBES:
            raise DelayError(f"{self.name}: {self.problem}", delay_s=_PROBE_DELAY_S)

    def _succeeded(self, probe: bool) -> None:
        if self._state is BreakerState.OPEN:  # a call from before it opened, or a probe beside one that failed
            return
        if self._state is BreakerState.HALF_OPEN and not probe:
            return
        self._outcomes.append(True)
        if self._state is BreakerState.HALF_OPEN and len(self._outcomes) >= _PROBES:
            self._become(BreakerState.CLOSED)

    def _failed(self, error: Exception) -> None:
        if self._state is BreakerState.OPEN:
            return
        self._reason = f"{type(error).__name__}: {error}"[:200]
        self._outcomes.append(False)
        enough = len(self._outcomes) >= self._calls_min
        failures = self._outcomes.count(False)
        if self._state is BreakerState.HALF_OPEN or (
            enough and failures >= self._failures_ratio * len(self._outcomes)
        ):
            self._open_until = self._clock() + self._open_s
            self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        _log.warning("breaker.changed", breaker=self.name, state=state.name.lower(), reason=self._reason)
        self._state = state
        self._outcomes.clear()
        self._on_change(self.name, state)


class CircuitBreakers:
    """A process's circuit breakers by name: one round each thing outside.

    `on_change` is told each change of a state, `open_s` is for how many seconds a breaker refuses calls.
    """

    def __init__(self, on_change: Callable[[str, BreakerState], None], open_s: float) -> None:
        self._on_change = on_change
        self._open_s = open_s
        self._breakers: dict[str, CircuitBreaker] = {}

    def named(self, name: str) -> CircuitBreaker:
        """The breaker round what is called so; built when it is first asked for."""
        if name not in self._breakers:
            self._breakers[name] = CircuitBreaker(name, self._on_change, open_s=self._open_s)
        return self._breakers[name]

    def problems(self) -> dict[str, str]:
        """Why calls are refused, for a person, by the names of the breakers that are not closed."""
        return {name: breaker.problem for name, breaker in self._breakers.items() if breaker.problem}
