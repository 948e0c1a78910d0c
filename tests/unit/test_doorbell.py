"""What a relay hears while it waits: when rows may be handed to it, and when it looks for them all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from shared.publishing import Leading
from shared.publishing.doorbell import BYTES_MAX, ROWS_MAX, Doorbell, Row


def rows(*positions: int) -> list[dict[str, Any]]:
    return [{"position": position} for position in positions]


class Taken(list[Any]):
    """What a relay was handed, as long as it takes any."""

    takes = True

    def __call__(self, rows: Sequence[Row]) -> bool:
        if self.takes:
            self += rows
        return self.takes


def standing_by(taken: Taken | None = None) -> Doorbell:
    doorbell = Doorbell()
    doorbell.begin_look()
    doorbell.open(Taken() if taken is None else taken)
    return doorbell


def ticket_of(doorbell: Doorbell) -> int:
    ticket = doorbell.ticket()
    assert ticket is not None
    return ticket


def test_a_relay_that_stands_by_takes_rows_without_a_look() -> None:
    doorbell = standing_by(taken := Taken())
    first, second = ticket_of(doorbell), ticket_of(doorbell)
    doorbell.hand_over(first, rows(1, 2))
    doorbell.hand_over(second, rows(3))
    assert (taken, doorbell.is_rung) == (rows(1, 2, 3), False)


@pytest.mark.parametrize("between", [Doorbell.begin_look, Doorbell.close, Doorbell.ring])
def test_no_ticket_is_to_be_had_while_it_looks_or_is_about_to(between: Callable[[Doorbell], None]) -> None:
    assert Doorbell().ticket() is None, "it does not lead"
    doorbell = standing_by()
    between(doorbell)
    assert doorbell.ticket() is None


def test_after_a_look_a_ticket_of_before_is_good_for_nothing() -> None:
    """That look may have found the rows: they would be published twice."""
    doorbell = standing_by(taken := Taken())
    ticket = ticket_of(doorbell)
    doorbell.begin_look()
    doorbell.open(taken)
    doorbell.hand_over(ticket, rows(1))
    assert (taken, doorbell.is_rung) == ([], True)


@pytest.mark.parametrize("between", [Doorbell.close, Doorbell.ring])
def test_what_comes_when_a_look_is_due_is_left_to_that_look(between: Callable[[Doorbell], None]) -> None:
    doorbell = standing_by(taken := Taken())
    one, other = ticket_of(doorbell), ticket_of(doorbell)
    between(doorbell)
    doorbell.hand_over(one, rows(1))
    doorbell.hand_over(other, rows(2))
    assert (taken, doorbell.is_rung) == ([], True)
    doorbell.begin_look()
    assert not doorbell.is_rung


def test_what_the_relay_does_not_take_and_what_comes_behind_it_is_looked_for() -> None:
    doorbell = standing_by(taken := Taken())
    tickets = [ticket_of(doorbell) for _ in range(3)]
    doorbell.hand_over(tickets[0], rows(1))
    taken.takes = False
    doorbell.hand_over(tickets[1], rows(2))
    taken.takes = True
    doorbell.hand_over(tickets[2], rows(3))
    assert (taken, doorbell.is_rung, doorbell.ticket()) == (rows(1), True, None)


async def test_whoever_waits_hears_what_comes_before_and_while_it_waits() -> None:
    doorbell = standing_by()
    assert not await doorbell.wait(0.001)
    for call in (Doorbell.wake, Doorbell.ring):
        waiting = asyncio.create_task(doorbell.wait(3_600))
        await asyncio.sleep(0)
        call(doorbell)
        call(doorbell)
        assert await asyncio.wait_for(waiting, 10)
    assert await doorbell.wait(0), "nobody has looked yet"


async def test_who_waits_no_more_leaves_nothing_behind() -> None:
    doorbell = standing_by()
    waiting = asyncio.create_task(doorbell.wait(3_600))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    doorbell.ring()
    assert await doorbell.wait(0)


# -- of several shards


def event(shard: int, body: bytes = b"") -> dict[str, Any]:
    return {"shard": shard, "key": str(shard), "body": body}


def test_each_shard_s_relay_is_handed_its_own_rows() -> None:
    taken = [Taken(), Taken()]
    leading, doorbells = Leading(2), [standing_by(one) for one in taken]
    with leading.of(0, doorbells[0]), leading.of(1, doorbells[1]):
        offer = leading.offer([event(2), event(3), event(4)])
        assert offer is not None
        leading.hand_over(offer, [7, 8, 9])
    handed = [[(row["position"], row["key"]) for row in rows_of] for rows_of in taken]
    assert handed == [[(7, "2"), (9, "4")], [(8, "3")]]
    with leading.of(1, doorbells[1]):
        leading.hand_over(offer, [7, 8, 9])
    assert not doorbells[0].is_rung, "who leads for it elsewhere looks by itself"


def test_nothing_is_offered_that_one_of_its_relays_would_not_take() -> None:
    leading, doorbells = Leading(2), [standing_by(), standing_by()]
    with leading.of(0, doorbells[0]), leading.of(1, doorbells[1]):
        doorbells[1].begin_look()
        assert leading.offer([event(0), event(1)]) is None
        assert leading.offer([event(0)]) is not None


def test_nothing_is_offered_that_is_more_than_a_few_rows_or_too_large() -> None:
    leading = Leading(1)
    with leading.of(0, standing_by()):
        assert leading.offer([event(0)] * ROWS_MAX) is not None
        assert leading.offer([event(0)] * (ROWS_MAX + 1)) is None
        assert leading.offer([event(0, b"." * BYTES_MAX)]) is not None
        assert leading.offer([event(0, b"." * BYTES_MAX), event(0, b".")]) is None
    assert leading.offer([event(0)]) is None, "nobody leads"
