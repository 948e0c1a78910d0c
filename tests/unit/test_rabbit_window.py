"""What is held of a queue is bounded in bytes, and keeps its order whatever is let go and comes again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.broker.base import Settlement
from shared.broker.rabbit.acknowledging import acknowledgements
from shared.broker.rabbit.window import Held, LetGo, Window

SIZE = 100_000


@dataclass
class Channel:
    """Says whether it is closed."""

    is_closed: bool = False


@dataclass
class Raw:
    """What a window looks at of a message."""

    body: bytes
    delivery_tag: int
    channel: Channel
    headers: dict[str, Any] = field(default_factory=dict)


class Queue:
    """Sends messages as the broker does: what is given back before what has not been delivered, under new tags."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.channel = Channel()
        self.tag = 0

    def send(self, *names: str) -> None:
        for name in names:
            self.tag += 1
            raw: Any = Raw(name.encode() + bytes(SIZE), self.tag, self.channel)
            self.window.arrive(Held.of(raw))

    def settle(self, *, keep: int = 0) -> list[str]:
        """Take what is there and settle it, but for the last `keep`; the names."""
        taken = self.window.take(100)
        self.window.settled(taken[len(taken) - keep :] if keep else [])
        return [name_of(held) for held in taken]


def name_of(held: Held) -> str:
    return held.raw.body.rstrip(b"\0").decode()


def window(*, ordered: bool = True) -> Window:
    """Room for three."""
    return Window(3 * SIZE - SIZE // 2, ordered=ordered)


def test_small_ones_are_all_held() -> None:
    held = Window(10**9, ordered=True)
    Queue(held).send(*map(str, range(50)))
    assert held.waiting == 50
    assert not held.incomplete


def test_when_enough_is_held_only_the_place_is_kept_and_the_order_is() -> None:
    held = window()
    queue = Queue(held)
    queue.send("a", "b", "c", "d", "e", "f", "g")
    assert held.recall() == [], "there is no room"
    assert queue.settle() == ["a", "b", "c"]
    assert [place.tag for place in held.recall()] == [4, 5, 6]
    queue.send("new")  # it was on its way already
    queue.send("d", "e", "f")
    assert queue.settle() == ["d", "e", "f"]
    assert [place.tag for place in held.recall()] == [7, 8]
    queue.send("g", "new")
    assert queue.settle() == ["g", "new"]
    assert not held.incomplete


def test_one_that_is_larger_than_the_bound_is_held_alone() -> None:
    held = Window(10, ordered=True)
    queue = Queue(held)
    queue.send("a", "b")
    for name in ("a", "b"):
        assert queue.settle() == [name]
        for _ in held.recall():
            queue.send("b")


def test_what_is_retried_takes_its_room_and_comes_first() -> None:
    held = window()
    queue = Queue(held)
    queue.send("a", "b", "c", "d")
    assert queue.settle(keep=3) == ["a", "b", "c"]
    assert held.recall() == []
    assert queue.settle() == ["a", "b", "c"]


def test_what_never_comes_back_is_not_waited_for() -> None:
    held = window()
    queue = Queue(held)
    queue.send("a", "b", "c", "d", "e", "f")
    queue.settle()
    assert len(held.recall()) == 3
    queue.send("f")  # d and e were taken out of the queue meanwhile
    assert queue.settle() == ["f"]
    assert not held.incomplete
    queue.send("x", "y", "z", "lost", "then")
    queue.settle()
    held.recall()
    held.forget_recalled()
    queue.send("more")
    assert queue.settle() == ["more"]


def test_where_others_consume_what_arrives_is_held_as_long_as_there_is_room() -> None:
    held = window(ordered=False)
    queue = Queue(held)
    queue.send("a", "b", "c", "d")
    queue.settle()
    assert len(held.recall()) == 1
    queue.send("e", "f", "g")
    assert queue.settle() == ["e", "f"], "one room is for the one that comes back"
    queue.send("d")
    assert queue.settle() == ["d"]


def test_what_came_by_a_closed_channel_is_dropped() -> None:
    held = window()
    queue = Queue(held)
    queue.send("a", "b", "c", "d")
    queue.channel.is_closed = True
    queue.channel = Channel()
    queue.send("a", "b", "c")
    assert queue.settle() == ["a", "b", "c"]
    assert not held.incomplete


def test_no_acknowledgement_covers_a_message_whose_body_was_let_go() -> None:
    held = window()
    queue = Queue(held)
    queue.send("a", "b", "c", "d", "e", "f", "g")  # tags 1 to 7
    first = held.take(100)
    sent = acknowledgements(first, [Settlement.ACK] * 3, held)
    assert [(ack.tag, ack.covers) for ack in sent] == [(3, True)]
    held.settled([])
    held.recall()
    queue.send("d", "e", "f")  # 8 to 10, while 7 is unsettled
    again = held.take(100)
    sent = acknowledgements(again, [Settlement.ACK] * 3, held)
    assert [(ack.tag, ack.covers) for ack in sent] == [(8, False), (9, False), (10, False)]


def test_all_that_is_unsettled_can_be_given_back() -> None:
    held = window()
    queue = Queue(held)
    queue.send("a", "b", "c", "d")
    held.take(1)
    unsettled = held.unsettled()
    assert [one.tag for one in unsettled] == [1, 2, 3, 4]
    assert isinstance(unsettled[-1], LetGo)
    held.clear()
    assert held.unsettled() == []


def names(taken: Sequence[Held]) -> list[str]:
    return [name_of(held) for held in taken]


def test_what_is_taken_ahead_is_in_hand_when_what_was_before_it_is_settled() -> None:
    own = Window(100 * SIZE, ordered=True)
    queue = Queue(own)
    queue.send("a", "b", "c", "d", "e")
    assert names(own.take(2)) == ["a", "b"]
    assert names(own.take_ahead(2)) == ["c", "d"]
    assert (own.taken_ahead, own.waiting, len(own.unsettled())) == (2, 1, 5)
    assert own.lowest_tag(queue.channel) == 3, "an acknowledgement of what is in hand must not reach it"
    own.settled([])
    assert (own.taken_ahead, own.waiting, own.lowest_tag(queue.channel)) == (0, 1, 5)
    assert names(own.unsettled()) == ["c", "d", "e"]  # type: ignore[arg-type]
    own.settled([])
    assert names(own.take(2)) == ["e"]


def test_what_was_taken_ahead_waits_again_behind_what_is_to_be_retried() -> None:
    own = Window(100 * SIZE, ordered=True)
    Queue(own).send("a", "b", "c", "d", "e")
    taken = own.take(2)
    own.take_ahead(2)
    own.settled(taken[1:])
    assert names(own.take(9)) == ["b", "c", "d", "e"]
    own.take_ahead(9)
    own.put_back()
    own.put_back()
    own.settled(own.take(0))
    assert names(own.take(9)) == ["b", "c", "d", "e"]
