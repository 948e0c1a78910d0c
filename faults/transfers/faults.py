"""The faults that the wallet alone has to bear; what else is broken is broken under it, too.

One process of the wallet answers requests, publishes and executes transfers.
"""

from __future__ import annotations

from faults.deaths import dies_at_each, restores, zombie
from faults.fault import Fault
from shared import failpoints

_WALLET = "wallet"
_PASSES = 8

TRANSFER_FAULTS: tuple[Fault, ...] = (
    Fault(
        "wallet-sigkill",
        "transfers: wallet SIGKILL around a commit and a publish",
        dies_at_each(
            _WALLET,
            failpoints.BEFORE_EFFECT,
            failpoints.AFTER_EFFECT,
            failpoints.AFTER_COMMIT,
            failpoints.BEFORE_PUBLISH,
            failpoints.AFTER_PUBLISH,
        ),
        load_s=10,
        restore=restores(_WALLET),
    ),
    zombie("wallet-zombie", "transfers: wallet", _WALLET, _PASSES, brokers=("rabbit",)),
)
