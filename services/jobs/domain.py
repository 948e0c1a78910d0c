"""What the jobs service's own jobs calculate. Pure: no I/O."""

from __future__ import annotations

NUMBER_MAX = 10**15
"""The largest number, either way: sums and products of such fit PostgreSQL's and everybody's JSON."""
SECONDS_MAX = 3_600.0
STOPPED_AFTER_S = SECONDS_MAX + 60.0
"""A step that is still at work then is stopped."""
ADD_SECONDS = 20.0
MULTIPLY_SECONDS = 2.0
EXAMPLE_MAX = 100
"""The short forms draw their numbers from 1 to this."""


def products_with_sum(total: int, numbers: list[int]) -> list[int]:
    """Each of the numbers times their sum."""
    return [total * number for number in numbers]
