"""The use cases of the wallet, each file those of one thing, and how its worker executes transfers."""

__all__ = ["accounts", "administration", "passwords", "sign_in", "subscribers", "transfers"]
