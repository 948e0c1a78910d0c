"""How many cores had nothing to do, between moments that are not those at which was looked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.idle import Idle, watching
from experiment.clock import until

_WATCHED = Idle([10.0, 11.0, 13.0, 14.0], [100.0, 102.0, 103.0, 103.0])


@pytest.mark.parametrize(
    ("begin_s", "end_s", "cores"), [(10, 11, 2.0), (11, 13, 0.5), (13, 14, 0.0), (10.5, 12, 1.0), (10, 14, 0.75)]
)
def test_it_is_the_average_between_two_moments(begin_s: float, end_s: float, cores: float) -> None:
    assert _WATCHED.cores(begin_s, end_s) == pytest.approx(cores)


@pytest.mark.parametrize(("begin_s", "end_s"), [(9.9, 11), (10, 14.1), (12, 12)])
def test_what_nobody_watched_is_not_guessed(begin_s: float, end_s: float) -> None:
    with pytest.raises(ValueError, match="nobody watched"):
        _WATCHED.cores(begin_s, end_s)
    with pytest.raises(ValueError, match="nobody watched"):
        Idle().cores(begin_s, end_s)


async def test_the_kernel_is_asked_all_the_time_that_is_watched() -> None:
    async with watching() as watched:

        async def looked_often() -> bool:
            return len(watched.at_s) > 3

        assert await until(looked_often, 5, 0.01)
        last_s = watched.at_s[-1]
    assert watched.at_s[-1] > last_s
    assert watched.at_s == sorted(watched.at_s)
    assert watched.idle_s == sorted(watched.idle_s)
    assert watched.idle_s[0] == pytest.approx(_idle_s(), rel=0.01)


def _idle_s() -> float:
    """As the kernel tells it, in hundredths: the fourth and the fifth of the first line (proc(5))."""
    _, *fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[3]) + int(fields[4])) / os.sysconf("SC_CLK_TCK")
