"""Fee rules: bands of amounts, each with a fixed fee and a share of the amount.

Written down as `0:0+0,100000:500+0,1000000:500+25`: from 100,000 on 500; from 1,000,000 on 500 and 0.25 %.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from services.wallet.domain.postings import AMOUNT_MAX
from shared.errors import ConfigurationError

BASIS_POINT: Final = 10_000
_BAND: Final = re.compile(r"(\d{1,13}):(\d{1,13})\+(\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class FeeBand:
    """For amounts of `least` and more: `fixed`, and `basis_points` ten-thousandths of the amount, rounded down."""

    least: int
    fixed: int
    basis_points: int = 0


@dataclass(frozen=True, slots=True)
class FeeRules:
    """Bands by rising `least`, the first of which begins at 0. Raises `ConfigurationError` for any others."""

    bands: tuple[FeeBand, ...]

    def __post_init__(self) -> None:
        least = [band.least for band in self.bands]
        if not least or least[0] != 0 or least != sorted(set(least)):
            raise ConfigurationError("fee rules are bands of rising amounts, the first from 0")
        if any(band.basis_points > BASIS_POINT or band.fixed > AMOUNT_MAX for band in self.bands):
            raise ConfigurationError(f"a fee is at most {AMOUNT_MAX} and the amount")

    def fee_of(self, amount: int) -> int:
        """The fee for sending `amount`, both in the currency's minor unit."""
        band = next(band for band in reversed(self.bands) if band.least <= amount)
        return band.fixed + amount * band.basis_points // BASIS_POINT


FREE: Final = FeeRules((FeeBand(0, 0),))


def fee_rules(text: str) -> FeeRules:
    """The rules that `text` writes down. Raises `ConfigurationError`."""
    bands = []
    for part in text.split(","):
        if (band := _BAND.fullmatch(part.strip())) is None:
            raise ConfigurationError(f"{part!r} is no fee band: AMOUNT:FEE+BASIS_POINTS")
        bands.append(FeeBand(*map(int, band.groups())))
    return FeeRules(tuple(bands))
