"""The HTTP of the wallet: accounts, transfers, distributions, what administrators do, and a page for members."""

from __future__ import annotations

from fastapi import FastAPI

from services.wallet.domain.fees import fee_rules
from services.wallet.http.accounts import add_accounts
from services.wallet.http.admin_accounts import add_account_commands, add_account_queries
from services.wallet.http.admin_users import add_types_and_acts, add_users
from services.wallet.http.distributions import add_distributions
from services.wallet.http.page import PATH, add_page
from services.wallet.http.problems import PROBLEMS
from services.wallet.http.receipts import add_receipts
from services.wallet.http.sign_in import add_sign_in
from services.wallet.http.transfers import add_transfers
from services.wallet.http.turns import Turns
from shared.http.application import service_app
from shared.http.cross_origin import CrossOriginGuard
from shared.process import Parts

__all__: list[str] = []


def create_app(parts: Parts) -> FastAPI:
    """The wallet's HTTP application, for a process with the role `api`."""
    app = service_app(
        title="Tandem wallet",
        description="Takes transfers and distributions of money between accounts, and tells what became of them.",
        telemetry=parts.telemetry,
        errors=PROBLEMS,
        outbox_gate=parts.outbox_gate,
        forms_under=PATH,
    )
    app.add_middleware(CrossOriginGuard)
    app.state.turns = Turns()
    fees = fee_rules(parts.settings.transfer_fees)
    signing = add_sign_in(app, parts)
    add_accounts(app, parts)
    add_users(app, parts)
    add_types_and_acts(app, parts)
    add_account_queries(app, parts)
    add_account_commands(app, parts)
    add_transfers(app, parts, fees)
    add_distributions(app, parts)
    add_receipts(app, parts)
    add_page(app, parts, fees, signing)
    return app
