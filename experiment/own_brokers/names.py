"""What a run may create on a broker of one's own: every channel and subscription of the services and of what may
run beside the orders, the places of the layers, and what is created to see whether that is possible."""

from __future__ import annotations

from deploy.topology import MAIL_SUBSCRIPTIONS, SUBSCRIPTIONS
from experiment.beside import every_place
from experiment.layers import MODES
from shared.broker import Subscription
from shared.broker.rabbit import names_for

TRIED = Subscription(channel="tried", subscriber="trial", types=frozenset({"tried"}))
"""Created, used and deleted before anything starts."""
_SUBSCRIPTIONS = (
    TRIED,
    *(
        Subscription(channel=channel, subscriber=subscriber, types=frozenset())
        for subscriber, channel in (*SUBSCRIPTIONS, *MAIL_SUBSCRIPTIONS)
    ),
    *every_place(),
)


def on_rabbit(prefix: str) -> tuple[list[str], list[str]]:
    """Exchanges and queues. AMQP cannot be asked for a list, so these are all that there can be."""
    channels = dict.fromkeys(subscription.channel for subscription in _SUBSCRIPTIONS)
    exchanges, queues = names_for(list(channels), _SUBSCRIPTIONS, prefix)
    modes = [mode for mode in MODES.values() if mode.broker == "rabbit"]
    return (
        exchanges + [mode.name_in(prefix) for mode in modes],
        queues + [queue for mode in modes for queue in mode.queues(prefix)],
    )
