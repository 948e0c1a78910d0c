"""The use cases of the wallet, each file those of one thing, and how its worker does them."""

__all__ = [
    "accounts",
    "administration",
    "closing",
    "distributions",
    "passwords",
    "receiving",
    "sign_in",
    "subscribers",
    "transfers",
]
