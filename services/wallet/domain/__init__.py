"""The rules of the wallet, each file one thing. Pure: no I/O, no clock, no chance of its own."""

__all__ = [
    "accounts",
    "administration",
    "distributions",
    "fees",
    "limits",
    "postings",
    "quotes",
    "receipts",
    "sign_in",
    "transfers",
]
