"""The tables of the wallet and their statements. Nothing here commits.

Rows are locked in one order, so that nobody waits in a circle: member, receipts by id, distributions by id,
transfers by id, accounts by id. What a day has used (`usage_day`) is changed by nobody but who holds the lock of
its account.
"""

__all__ = [
    "accounts",
    "administration",
    "asking",
    "audit",
    "distributions",
    "locking",
    "receipts",
    "sign_in",
    "taking",
    "transfers",
]
