"""Amounts of money as people read and write them: minor units with the decimals of their currency (ISO 4217)."""

from __future__ import annotations

import re
from typing import Final

# Currencies whose minor unit is not a hundredth.
NO_DECIMALS: Final = frozenset("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split())  # noqa: SIM905
THREE_DECIMALS: Final = frozenset("BHD IQD JOD KWD LYD OMR TND".split())  # noqa: SIM905
_WRITTEN: Final = re.compile(r"(\d{1,15}|\d{1,3}(?:,\d{3}){1,4})(?:\.(\d{1,3}))?", re.ASCII)


def decimals_of(currency: str) -> int:
    """How many decimals an amount of this currency has."""
    return 0 if currency in NO_DECIMALS else 3 if currency in THREE_DECIMALS else 2


def format_amount(amount: int, currency: str, *, thousands: str = "") -> str:
    """An amount in minor units as people write it, with `thousands` between thousands: `1250, "EUR"` → `12.50`."""
    decimals = decimals_of(currency)
    whole, fraction = divmod(abs(amount), 10**decimals)
    sign, shown = "-" if amount < 0 else "", f"{whole:,}".replace(",", thousands)
    return f"{sign}{shown}.{fraction:0{decimals}d}" if decimals else f"{sign}{shown}"


def parse_amount(text: str, currency: str) -> int:
    """The minor units that somebody wrote: `"1,250.5", "EUR"` → 125050. Raises `ValueError`."""
    written = _WRITTEN.fullmatch(text.strip())
    decimals = decimals_of(currency)
    if written is None or len(written[2] or "") > decimals:
        raise ValueError(f"not an amount of {currency}")
    return int(written[1].replace(",", "") + (written[2] or "").ljust(decimals, "0"))
