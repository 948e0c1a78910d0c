"""Publishing: a unit of work writes events to the outbox, the relay moves them to the broker."""

from shared.publishing.outbox import outbox_of, outbox_state
from shared.publishing.relay import Relay
from shared.publishing.uow import UnitOfWork, UnitsOfWork

__all__ = [
    "Relay",
    "UnitOfWork",
    "UnitsOfWork",
    "outbox_of",
    "outbox_state",
]
