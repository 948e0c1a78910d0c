"""Publishes rows of the outbox through the broker, and knows how that goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from shared import failpoints
from shared.broker import Message, Publisher, PublishFailure
from shared.errors import UnavailableError
from shared.publishing.doorbell import Row
from shared.publishing.sent import Outcome, Sent
from shared.settings import Settings
from shared.telemetry import Telemetry

STANDS_STILL_S = 50.0
"""Told then, and asked for by probes every few seconds, it is known within a minute."""


class Sending:
    """Of one relay. Several may be published at once, if they have no key in common."""

    def __init__(
        self, settings: Settings, publisher: Publisher, telemetry: Telemetry, clock: Callable[[], float]
    ) -> None:
        self._publisher = publisher
        self._clock = clock
        self._fail_points = failpoints.FailPoints.told(settings.failpoints)
        self._under_way = 0
        self._refusal = ""
        self.waiting_since: float | None = None
        """Since when something has waited and nothing was confirmed; None while that is not so."""
        self.failures_in_a_row = 0
        self.sent = Sent(telemetry)

    @property
    def trouble(self) -> str | None:
        """Why no event has left for `STANDS_STILL_S` though some wait, for a person; None while all is well."""
        since = self.waiting_since
        if since is None or self._clock() - since < STANDS_STILL_S:
            return None
        return f"stands still, with events waiting: {self._refusal or 'the broker does not answer'}"

    async def publish(self, rows: Sequence[Row]) -> Outcome:
        """Publish these rows; the outcome says what failed. It is for the caller to say what comes of it."""
        started_ns = time.time_ns()
        if self.waiting_since is None:
            self.waiting_since, self._refusal = self._clock(), ""
        messages = [Message(row["channel"], row["type"], row["key"], row["body"]) for row in rows]
        if self._fail_points is not None:
            self._fail_points.reach(failpoints.BEFORE_PUBLISH)
        self._under_way += 1
        try:
            failures = await self._publisher.publish(messages)
        except UnavailableError as error:
            failures = [PublishFailure(message, error) for message in messages]
        finally:
            self._under_way -= 1
        if self._fail_points is not None:
            self._fail_points.reach(failpoints.AFTER_PUBLISH)
        failed = _failed(rows, messages, failures) if failures else frozenset()
        return Outcome(rows, failures, failed, started_ns, time.time_ns())

    def confirmed(self, outcome: Outcome) -> None:
        """All of it was."""
        self.waiting_since = self._clock() if self._under_way else None
        self.failures_in_a_row = 0
        self.sent.add(outcome)

    def failed(self, outcomes: Sequence[Outcome]) -> Sequence[PublishFailure]:
        """Something of these was not confirmed. Return what."""
        for outcome in outcomes:
            self.sent.tell_of(outcome)
        failures = [failure for outcome in outcomes for failure in outcome.failures]
        self._refusal = str(failures[0].error)
        if any(outcome.confirmed for outcome in outcomes):
            self.waiting_since = self._clock()
        return failures


def _failed(
    rows: Sequence[Row], messages: Sequence[Message], failures: Sequence[PublishFailure]
) -> frozenset[str]:
    """The ids of the events whose messages failed."""
    failed = {id(failure.message) for failure in failures}
    return frozenset(row["event_id"] for row, message in zip(rows, messages, strict=True) if id(message) in failed)
