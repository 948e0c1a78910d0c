"""A handler that keeps its failures apart: what fails costs the others nothing."""

from __future__ import annotations

from collections.abc import Sequence

from shared.broker.base import Delivery, Settlement
from shared.broker.batches import isolating
from shared.errors import UnavailableError

ACK, RETRY = Settlement.ACK, Settlement.RETRY


def deliveries(*bodies: bytes) -> list[Delivery]:
    return [Delivery(body, {}, "order", None, False, f"order#{body!r}", None) for body in bodies]


async def test_only_what_fails_alone_comes_again() -> None:
    kept: list[bytes] = []

    async def keep(batch: Sequence[Delivery]) -> None:
        if any(delivery.body == b"bad" for delivery in batch):
            raise ValueError("planted")
        kept.extend(delivery.body for delivery in batch)

    assert await isolating(keep)(deliveries(b"1", b"bad", b"2")) == [ACK, RETRY, ACK]
    assert kept == [b"1", b"2"]
    assert await isolating(keep)(deliveries(b"3", b"4")) == [ACK] * 2


async def test_a_server_that_is_away_is_not_asked_for_each() -> None:
    calls: list[int] = []

    async def keep(batch: Sequence[Delivery]) -> None:
        calls.append(len(batch))
        raise UnavailableError("planted")

    assert await isolating(keep)(deliveries(b"1", b"2")) == [RETRY] * 2
    assert calls == [2]
