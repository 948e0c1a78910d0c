"""The circuit breaker, call by call, with a clock of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from shared.errors import DelayError, PermanentError, TransientError
from shared.outside.circuit_breaker import BreakerState, CircuitBreaker, CircuitBreakers


class Bench:
    """A breaker, the time, and what it told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[BreakerState] = []
        self.breaker = CircuitBreaker("smtp", lambda _, state: self.told.append(state), clock=lambda: self.now)

    async def call(self, error: Exception | None = None) -> bool:
        """Whether the call was let through."""
        passed = False
        with suppress(DelayError, type(error) if error else DelayError):
            async with self.breaker.call():
                passed = True
                if error is not None:
                    raise error
        return passed

    async def calls(self, outcomes: str) -> None:
        """`+` a success, `-` a failure; all must be let through."""
        for outcome in outcomes:
            assert await self.call(None if outcome == "+" else TransientError("away"))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("-" * 9, BreakerState.CLOSED),
        ("-" * 10, BreakerState.OPEN),
        ("+-" * 5, BreakerState.OPEN),
        ("+" * 20 + "-" * 9, BreakerState.CLOSED),
        ("+" * 20 + "-" * 10, BreakerState.OPEN),
        ("+" * 5 + "-" * 4, BreakerState.CLOSED),
        ("++-" * 20, BreakerState.CLOSED),
    ],
)
async def test_it_opens_at_half_of_the_last_twenty_once_there_were_ten(
    bench: Bench, outcomes: str, state: BreakerState
) -> None:
    await bench.calls(outcomes)
    assert bench.breaker.state is state


async def test_while_open_it_says_how_long_to_wait(bench: Bench) -> None:
    await bench.calls("-" * 10)
    bench.now = 10.0
    with pytest.raises(DelayError) as refused:
        async with bench.breaker.call():
            pytest.fail("let through")
    assert refused.value.delay_s == 20.0
    assert "away" in (bench.breaker.problem or "")


async def test_after_its_time_three_probes_close_it(bench: Bench) -> None:
    await bench.calls("-" * 10)
    bench.now = 30.0
    await bench.calls("++")
    state = bench.breaker.state
    assert state is BreakerState.HALF_OPEN
    await bench.calls("+")
    assert (bench.breaker.state, bench.breaker.problem) == (BreakerState.CLOSED, None)
    assert bench.told == [
        BreakerState.CLOSED,
        BreakerState.OPEN,
        BreakerState.HALF_OPEN,
        BreakerState.CLOSED,
    ]
    await bench.calls("-" * 9)
    assert bench.breaker.state is BreakerState.CLOSED, "what was before it opened is forgotten"


async def test_a_probe_that_fails_opens_it_again(bench: Bench) -> None:
    await bench.calls("-" * 10)
    bench.now = 30.0
    await bench.calls("+-")
    assert bench.breaker.state is BreakerState.OPEN
    bench.now = 59.0
    assert not await bench.call()


async def test_only_three_probes_pass_at_once_and_a_cancelled_one_makes_room(bench: Bench) -> None:
    await bench.calls("-" * 10)
    bench.now = 30.0

    async def hang() -> None:
        async with bench.breaker.call():
            await asyncio.get_running_loop().create_future()

    probes = [asyncio.create_task(hang()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not await bench.call()
    probes[0].cancel()
    with suppress(asyncio.CancelledError):
        await probes[0]
    assert await bench.call()
    for probe in probes[1:]:
        probe.cancel()


async def test_a_refusal_of_one_call_alone_is_an_answer(bench: Bench) -> None:
    for _ in range(30):
        assert await bench.call(PermanentError("no such mailbox"))
    assert bench.breaker.state is BreakerState.CLOSED


async def test_a_process_has_one_breaker_for_each_name_and_knows_which_are_not_closed() -> None:
    told: list[tuple[str, BreakerState]] = []
    breakers = CircuitBreakers(lambda name, state: told.append((name, state)), open_s=7.0)
    smtp = breakers.named("smtp")
    assert breakers.named("smtp") is smtp
    assert breakers.named("bank") is not smtp
    assert breakers.problems() == {}
    for _ in range(10):
        with suppress(TransientError):
            async with smtp.call():
                raise TransientError("away")
    assert breakers.problems() == {"smtp": "circuit breaker open: TransientError: away"}
    assert told == [
        ("smtp", BreakerState.CLOSED),
        ("bank", BreakerState.CLOSED),
        ("smtp", BreakerState.OPEN),
    ]
    with pytest.raises(DelayError) as refused:
        async with breakers.named("smtp").call():
            pytest.fail("an open breaker lets nothing pass")
    assert 0 < refused.value.delay_s <= 7.0
