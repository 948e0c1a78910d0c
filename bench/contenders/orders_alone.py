"""The order service with everything but its outbox: `python -m bench.contenders.orders_alone`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.event import EventData
from shared.process import Parts, build_parts, run
from shared.publishing import Published, UnitOfWork, UnitsOfWork
from shared.settings import Settings

_SERVICE = "services.order.app:SERVICE"
"""By name: it runs here as it is, and nothing of it is used otherwise."""
_NOTHING = Published({"event_id": "", "traceparent": None, "body": b""})


class _Silent(UnitOfWork):
    """One that publishes nothing."""

    def publish(self, data: EventData, **_options: Any) -> Published:
        return _NOTHING


class _SilentUnits(UnitsOfWork):
    """Those that publish nothing."""

    def _unit(self, connection: AsyncConnection, begin: Callable[[], None]) -> UnitOfWork:
        return _Silent(connection, self._service, self._spans, self.submitter, begin=begin)


def build(service_name: str, settings: Settings) -> Parts:
    """A process's parts, whose units of work publish nothing."""
    parts = build_parts(service_name, settings)
    return replace(parts, units=_SilentUnits(parts.database, service_name, parts.telemetry.spans))


if __name__ == "__main__":
    sys.exit(run(resolve_name(_SERVICE), build))
