"""Consuming: the stages that a batch of deliveries goes through until its effects are recorded."""

from shared.consuming import inbox
from shared.consuming.claims import Claims
from shared.consuming.hearing import hear_directly
from shared.consuming.intake import Intake, taken_up_max
from shared.consuming.pipeline import Pipeline
from shared.consuming.subscriber import EventHandler, Handler, Subscriber

__all__ = [
    "Claims",
    "EventHandler",
    "Handler",
    "Intake",
    "Pipeline",
    "Subscriber",
    "hear_directly",
    "inbox",
    "taken_up_max",
]
