"""A service's real process with one part broken on purpose, as real systems are, for the suite to find out.

`python -m tests.faults.sabotaged <sabotage> <service>` runs `services.<service>.app` with that part replaced.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from shared import failpoints
from shared.broker.base import BatchHandler, Delivery, Settlement
from shared.consuming import inbox
from shared.consuming.claims import Claim, Claims, ClaimState
from shared.envelope import Envelope
from shared.process import parts, server
from shared.publishing.doorbell import Doorbell
from shared.publishing.outbox_reader import OutboxReader
from shared.publishing.relay import Relay
from tests.conformance.broken import AcknowledgesFirst

_AFTER_THE_ACK_S = 0.3
"""Work called done too early waits so long: until the acknowledgement has gone out."""


class AcknowledgesEarly(AcknowledgesFirst):
    """The work begins when the acknowledgement is on its way."""

    async def handle(self, handler: BatchHandler, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        async def later(deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
            await asyncio.sleep(_AFTER_THE_ACK_S)
            return await handler(deliveries)

        return await super().handle(later, batch)


def replace(owner: object, name: str, sabotaged: object) -> None:
    """Put the sabotaged part where the sound one is; fails where there is none any more."""
    assert hasattr(owner, name), f"{owner} has no {name} to sabotage"
    setattr(owner, name, sabotaged)


def acknowledge_early() -> None:
    replace(parts, "create_broker", AcknowledgesEarly)


def switch_inbox_off() -> None:
    async def record(_connection: Any, _subscriber: str, _events: Sequence[Envelope]) -> tuple[()]:
        return ()  # as if it knew none

    replace(inbox, "record", record)
    replace(inbox, "fence", lambda *_: None)


def claim_without_owner() -> None:
    """A boolean lock: whoever finds it set takes the event for dealt with."""

    async def claim(self: Claims, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        keys = [f"locked:{subscriber}:{event.id}" for event in events]
        new = [await self._redis.set(key, 1, nx=True, ex=300) for key in keys]
        return [Claim(ClaimState.NEW if first else ClaimState.DONE, 1) for first in new]

    async def nothing(self: Claims, *_arguments: Any, **_options: Any) -> None:
        return

    replace(Claims, "claim", claim)
    replace(Claims, "done", nothing)
    replace(Claims, "release", nothing)


def mark_before_confirming() -> None:
    """Rows are deleted as soon as they are read, and none is published unread.

    The relay dies together with the HTTP interface, before clients have their answers: what was committed is lost.
    """
    publish = Relay._publish

    async def marked(self: Relay, reader: OutboxReader, rows: Sequence[Any], ahead: Any) -> Any:
        await reader.delete([row["position"] for row in rows])
        return await publish(self, reader, rows, ahead)

    def no_ticket(_: Doorbell) -> None:
        return

    replace(Relay, "_publish", marked)
    replace(Doorbell, "ticket", no_ticket)


SABOTAGES: dict[str, Callable[[], None]] = {
    "acknowledge-early": acknowledge_early,
    "no-inbox": switch_inbox_off,
    "claim-without-owner": claim_without_owner,
    "mark-before-confirming": mark_before_confirming,
}
ARMED = {
    "acknowledge-early": failpoints.BEFORE_EFFECT,
    "no-inbox": failpoints.AFTER_COMMIT,
    "claim-without-owner": failpoints.BEFORE_EFFECT,
    "mark-before-confirming": failpoints.BEFORE_PUBLISH,
}
"""Where a process must die for the sabotage to show."""


def main(sabotage: str, service: str) -> int:
    SABOTAGES[sabotage]()
    app = import_module(f"services.{service}.app")
    return server.run(app.SERVICE)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
