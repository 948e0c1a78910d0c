"""The wallet: a ledger of double entry, accounts, transfers and distributions. No process runs it yet."""

__all__: list[str] = []
