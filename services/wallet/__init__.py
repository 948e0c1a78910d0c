"""The wallet: a ledger of double entry, accounts, transfers and distributions."""

__all__: list[str] = []
