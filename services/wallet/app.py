"""The wallet: accounts, transfers and their ledger. Run it with `python -m services.wallet.app`."""

from __future__ import annotations

from services.wallet.domain.fees import fee_rules
from services.wallet.events import PUBLISHED
from services.wallet.handlers.subscribers import SUBSCRIBERS, transfer_subscriber
from shared.consuming import Subscriber
from shared.process import Parts, Service, run


def transfer_subscribers(parts: Parts) -> tuple[Subscriber, ...]:
    """Who executes transfers. Raises `ConfigurationError` for fees that are no rules, whichever role asks."""
    fee_rules(parts.settings.transfer_fees)
    return (transfer_subscriber(parts.settings.transfer_delay_s),)


SERVICE = Service(
    name="wallet",
    publishes=PUBLISHED,
    subscribers=SUBSCRIBERS,
    more_subscribers=transfer_subscribers,
    application="services.wallet.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
