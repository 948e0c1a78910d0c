"""The wallet: accounts, transfers, distributions and their ledger. Run it with `python -m services.wallet.app`.

`python -m services.wallet.app audit` asks the database, as it is at one moment, whether the ledger is right.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from services.wallet.background import be_ready_to_ask, keep_closing
from services.wallet.domain.fees import fee_rules
from services.wallet.events import PUBLISHED
from services.wallet.handlers.subscribers import SUBSCRIBERS, share_subscriber, transfer_subscriber
from services.wallet.store.audit import Finding, audit, begin_snapshot, report
from shared.consuming import Subscriber
from shared.database import Database
from shared.errors import ConfigurationError, TandemError
from shared.garbage import collect_seldom
from shared.process import Parts, Service, run
from shared.settings import Settings

_BROKEN: Final = 1
_NOT_ASKED: Final = 2
_REFUSED: Final = 78
_AUDIT_TIMEOUT_S: Final = 600.0


def money_subscribers(parts: Parts) -> tuple[Subscriber, ...]:
    """Who executes transfers, and who hands out shares.

    Raises `ConfigurationError` for fees that are no rules, whichever role asks.
    """
    fee_rules(parts.settings.transfer_fees)
    return transfer_subscriber(parts.settings.transfer_delay_s), share_subscriber(parts.responder)


SERVICE = Service(
    name="wallet",
    publishes=PUBLISHED,
    subscribers=SUBSCRIBERS,
    more_subscribers=money_subscribers,
    background_tasks=(keep_closing, be_ready_to_ask),
    application="services.wallet.http:create_app",
)


def print_audit() -> int:
    """Print a line for each rule of the ledger, and where it is broken.

    Returns 0 when all hold, 1 when one is broken, 2 when the database could not be asked, 78 for bad settings.
    """
    try:
        settings = Settings.from_environment(postgres_timeout_s=_AUDIT_TIMEOUT_S)
        findings = asyncio.run(_findings(settings))
    except TandemError as error:
        print(f"wallet: {error}", file=sys.stderr)
        return _REFUSED if isinstance(error, ConfigurationError) else _NOT_ASKED
    for line in report(findings):
        print(line)
    return _BROKEN if findings else 0


async def _findings(settings: Settings) -> list[Finding]:
    database = Database(settings, "wallet-audit")
    try:
        async with database.transaction() as connection:
            await begin_snapshot(connection)
            return await audit(connection)
    finally:
        await database.close()


def main(arguments: Sequence[str]) -> int:
    """Run a process of the wallet, or with `audit` its audit; returns the exit code."""
    if list(arguments) != ["audit"]:
        return run(SERVICE)
    collect_seldom()
    return print_audit()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
