"""Publishing: a unit of work writes events to the outbox, the relay moves them to the broker."""

from shared.publishing import direct, outbox
from shared.publishing.leading import Leading
from shared.publishing.outbox import outbox_of, outbox_state
from shared.publishing.relay import Relay
from shared.publishing.submitting import Firing, Options, Submitted, Submitter
from shared.publishing.uow import UnitOfWork, UnitsOfWork
from shared.publishing.written import Cause, Published

__all__ = [
    "Cause",
    "Firing",
    "Leading",
    "Options",
    "Published",
    "Relay",
    "Submitted",
    "Submitter",
    "UnitOfWork",
    "UnitsOfWork",
    "direct",
    "outbox",
    "outbox_of",
    "outbox_state",
]
