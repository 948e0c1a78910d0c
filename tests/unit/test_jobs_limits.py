"""Limits as handlers declare them: what they are shared by, and what is refused."""

from __future__ import annotations

import pytest

from shared.jobs.errors import BadArgumentsError
from shared.jobs.signatures import job


@job(leased=True, concurrency=2, concurrency_key="user")
async def keyed(amount: int, user: str) -> int:
    return amount


@job(leased=True, concurrency=1)
async def alone(amount: int) -> int:
    return amount


@job(leased=True)
async def unlimited(amount: int) -> int:
    return amount


def test_what_shares_a_limit_has_one_key_of_its_handler_and_its_argument() -> None:
    assert keyed.concurrency_key({"amount": 1, "user": "a"}) == keyed.concurrency_key({"amount": 2, "user": "a"})
    assert keyed.concurrency_key({"amount": 1, "user": "a"}) != keyed.concurrency_key({"amount": 1, "user": "b"})
    assert alone.concurrency_key({"amount": 1}) == alone.concurrency_key({"amount": 2}) == "alone"
    assert unlimited.concurrency_key({"amount": 1}) is None


def test_a_key_that_would_come_of_a_step_before_is_refused_when_submitting() -> None:
    with pytest.raises(BadArgumentsError, match="user, its concurrency key, must be said when submitting"):
        keyed.concurrency_key({"amount": 1})


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 1},
        {"leased": True, "concurrency": 0},
        {"leased": True, "concurrency_key": "amount"},
        {"leased": True, "concurrency": 1, "concurrency_key": "nothing"},
    ],
    ids=["inline", "none at all", "key without a number", "key that is no parameter"],
)
def test_limits_that_cannot_be_are_refused_where_the_handler_is_declared(options: dict[str, object]) -> None:
    async def handler(amount: int) -> int:
        return amount

    with pytest.raises(ValueError, match="concurrency"):
        job(**options)(handler)  # type: ignore[call-overload]
