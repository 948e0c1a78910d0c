"""Where on a broker anything may be that ever runs beside the orders, whichever scenario is played."""

from __future__ import annotations

from experiment.beside.answering import SUBSCRIBER, NumberAsked
from experiment.beside.subscribing import places
from experiment.workload import SUBSCRIBERS_MAX
from shared.broker import Subscription


def every_place() -> list[Subscription]:
    """Besides the jobs, which are where the jobs service's would be."""
    types = frozenset({NumberAsked.event_type})
    asked = Subscription(channel=NumberAsked.channel, subscriber=SUBSCRIBER, types=types, answers=True)
    return [asked, *places(SUBSCRIBERS_MAX)]
