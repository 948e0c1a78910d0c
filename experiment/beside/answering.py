"""Who answers requests beside the orders: each leaves a row, and its answer is known beforehand."""

from __future__ import annotations

from pydantic import BaseModel

from experiment.beside.effects import INSERT_EFFECT
from shared.consuming import Handler, Subscriber
from shared.event import Event, EventData
from shared.process import Parts, Service
from shared.publishing import UnitOfWork

SUBSCRIBER = "answering"


class NumberAsked(EventData):
    """Asks for the number after this one."""

    channel = "number"
    event_type = "number.asked"

    key: str
    number: int


class NumberAnswered(BaseModel):
    """The answer."""

    number: int


def expected(number: int) -> int:
    """What is answered to a number."""
    return number + 1


async def on_number_asked(event: Event[NumberAsked], uow: UnitOfWork) -> NumberAnswered:
    asked = event.data
    uow.tell(INSERT_EFFECT, {"subscriber": SUBSCRIBER, "key": asked.key, "value": asked.number})
    return NumberAnswered(number=expected(asked.number))


def subscribers(parts: Parts) -> tuple[Subscriber, ...]:
    """The one that answers."""
    responder = parts.responder
    return (
        Subscriber(
            channel=NumberAsked.channel,
            name=SUBSCRIBER,
            handlers=(Handler(NumberAsked, responder.answering(on_number_asked)),),
            put_aside=responder.put_aside,
            answers=True,
        ),
    )


SERVICE = Service(name="answering", more_subscribers=subscribers)
