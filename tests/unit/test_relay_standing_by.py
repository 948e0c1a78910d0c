"""The relay while it stands by: what it is handed, it publishes at once, in order per key; what ends that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from shared.broker.base import Message, PublishFailure
from shared.publishing.sending import STANDS_STILL_S
from shared.publishing.standing_by import UNDER_WAY_MAX
from tests.unit.test_relay_leading import NEVER_S, POLL_S, Leads, Session, rows


def under_way() -> list[asyncio.Task[Any]]:
    """What is being published: other tests' fixtures have tasks of theirs."""
    return [task for task in asyncio.all_tasks() if "StandingBy" in repr(task.get_coro())]


async def a_little_later() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def standing_by(leads: Leads, session: Session) -> AsyncIterator[int]:
    """A relay that found nothing at its first look, with a ticket; it ends when the block is left."""
    leading = asyncio.create_task(leads.lead(session))
    yield await leads.until_it_stands_by()
    await asyncio.wait_for(leading, 10)


async def test_what_is_handed_over_is_published_without_a_look_and_deleted_a_little_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session([])
    monkeypatch.setattr("shared.publishing.standing_by._DELETED_WITHIN_S", POLL_S)
    async with standing_by(leads, session) as ticket:
        leads.doorbell.hand_over(ticket, rows(7, 8))
        await leads.until(lambda: session.deleted == [7, 8])
        assert leads.published == [["7", "8"]]
        assert session.looked == [([], [])]
        leads.doorbell.hand_over(await leads.until_it_stands_by(), rows(9))
        await leads.until(lambda: session.deleted == [7, 8, 9])
        assert leads.told == ["7", "8", "9"]
        leads.doorbell.ring()
    assert session.looked == [([], []), ([], [])], "it is known to be gone"


async def test_many_that_are_handed_over_are_deleted_without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session([])
    monkeypatch.setattr("shared.publishing.standing_by._DELETED_WITHIN_S", NEVER_S / 2)
    async with standing_by(leads, session) as ticket:
        for number in range(16):
            assert session.deleted == []
            leads.doorbell.hand_over(ticket, rows(number))
            await leads.until(lambda: len(leads.published) == number + 1)  # noqa: B023 - awaited here
        await leads.until(lambda: session.deleted == [*range(16)])
        leads.doorbell.ring()


async def test_a_look_deletes_what_was_handed_over_and_does_not_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody rings while it is published: for an event of the same key, it may be."""
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session([], rows(8))
    async with standing_by(leads, session) as ticket:
        leads.go_on.clear()
        leads.doorbell.hand_over(ticket, rows(7))
        await leads.until(lambda: leads.published == [["7"]])
        leads.doorbell.ring()
        leads.doorbell.hand_over(ticket, rows(9))
        leads.go_on.set()
    assert session.looked == [([], []), ([7], [(7, 8)]), ([8], [(8, 9)])]
    assert leads.published == [["7"], ["8"]], "and what came behind is left to be found"


async def test_what_was_handed_over_and_not_confirmed_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session([], rows(8))
    leads.refused = {"8"}
    async with standing_by(leads, session) as ticket:
        leads.doorbell.hand_over(ticket, rows(7, 8))
    assert leads.published == [["7", "8"], ["8"]]
    assert (session.deleted, session.looked) == ([7], [([], []), ([], []), ([], [])])


async def test_a_relay_looks_by_itself_however_often_something_is_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For what nobody tells it of."""
    leads, session = Leads(monkeypatch, took_s=0.3, relay_poll_interval_s=1.0), Session([])
    async with standing_by(leads, session) as ticket:
        for number in range(4):
            leads.doorbell.hand_over(ticket, rows(number))
            await leads.until(lambda: len(leads.published) == number + 1)  # noqa: B023 - awaited here
            leads.doorbell.wake()  # as the clock would
            await leads.until(lambda: leads.doorbell._waits is not None or not session.looks)
    assert [look for look, _ in session.looked] == [[], [2, 3]], "0 and 1 were deleted before"


async def test_who_has_lost_its_session_publishes_nothing_that_is_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the session it has lost the lead: another may have published it, and what came behind."""
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session([])
    async with standing_by(leads, session) as ticket:
        session.closed = True
        leads.doorbell.hand_over(ticket, rows(7))
    assert (leads.published, leads.doorbell.ticket()) == ([], None)


async def test_a_relay_that_holds_something_back_is_handed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    leads, session = Leads(monkeypatch), Session([])
    leads.relay._held = {"k": 2_000.0}
    leading = asyncio.create_task(leads.lead(session))
    while not leading.done():
        assert leads.doorbell.ticket() is None
        await asyncio.sleep(0)
    await leading


async def test_what_is_confirmed_while_others_are_deleted_is_deleted_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session([])
    monkeypatch.setattr("shared.publishing.standing_by._DELETED_WITHIN_S", POLL_S)
    session.deletes.clear()
    async with standing_by(leads, session) as ticket:
        leads.doorbell.hand_over(ticket, rows(7))
        await leads.until(lambda: session.deleted == [7])
        monkeypatch.setattr("shared.publishing.standing_by._DELETED_WITHIN_S", NEVER_S / 2)
        leads.doorbell.hand_over(ticket, rows(8))
        await leads.until(lambda: leads.relay._confirmed == [7, 8])
        session.deletes.set()
        await leads.until(lambda: leads.relay._confirmed == [8])
        await a_little_later()
        assert session.deleted == [7]
        leads.doorbell.ring()
    assert session.looked[1] == ([8], [(8, 9)])


async def test_telemetry_is_told_of_what_a_look_found_before_the_relay_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session(rows(1), [])
    async with standing_by(leads, session):
        assert leads.told == ["1"]
        leads.doorbell.ring()


async def test_a_publish_has_nothing_of_the_request_that_began_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its trace nor what else belongs to it: the client's connection may be opened anew there."""
    leads, session = Leads(monkeypatch, relay_poll_interval_s=NEVER_S), Session([])
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []
    publish = leads.publish

    async def publish_and_see(messages: Sequence[Message]) -> list[PublishFailure]:
        seen.append(request.get())
        return await publish(messages)

    monkeypatch.setattr(leads, "publish", publish_and_see)
    async with standing_by(leads, session) as ticket:
        token = request.set("one")
        leads.doorbell.hand_over(ticket, rows(7))
        request.reset(token)
        await leads.until(lambda: leads.published == [["7"]])
        leads.doorbell.ring()
    assert seen == ["none"]


# -- several under way


class Several:
    """A relay that stands by, with what it was handed under way: each event stuck until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: list[dict[str, Any]]) -> None:
        self.leads = Leads(monkeypatch, relay_poll_interval_s=NEVER_S)
        self.session = Session([], *looks)
        self.ticket = 0

    def hand_over(self, position: int, key: str | None = None) -> None:
        """It gets stuck."""
        (row,) = rows(position)
        row["key"] = key = key or row["key"]
        self.leads.stuck.setdefault(key, asyncio.Event())
        self.leads.doorbell.hand_over(self.ticket, [row])

    async def under_way(self, *keys: str) -> None:
        """Until these and no others have been published so far."""
        await self.leads.until(lambda: [key for batch in self.leads.published for key in batch] == [*keys])

    def let_go(self, *keys: str) -> None:
        for key in keys:
            self.leads.stuck[key].set()


@asynccontextmanager
async def several(monkeypatch: pytest.MonkeyPatch, *looks: list[dict[str, Any]]) -> AsyncIterator[Several]:
    """When the block is left, the relay looks until `looks` are through."""
    some = Several(monkeypatch, *looks)
    async with standing_by(some.leads, some.session) as some.ticket:
        yield some


async def test_an_event_waits_for_no_confirmation_of_another_key_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.publishing.standing_by._DELETED_WITHIN_S", POLL_S)
    async with several(monkeypatch) as some:
        some.hand_over(7)
        some.hand_over(8)
        await some.under_way("7", "8")
        some.let_go("8")
        await some.leads.until(lambda: some.session.deleted == [8])
        some.hand_over(9)
        some.let_go("7", "9")
        await some.leads.until(lambda: sorted(some.session.deleted) == [7, 8, 9])
        assert some.session.looked == [([], [])]
        some.leads.doorbell.ring()


async def test_an_event_of_a_key_that_is_under_way_and_all_behind_it_are_looked_for_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with several(monkeypatch, rows(8, 9)) as some:
        some.hand_over(7, "k")
        some.hand_over(8, "k")
        some.hand_over(9)
        await a_little_later()
        assert (some.leads.published, some.session.looked) == ([["k"]], [([], [])])
        some.let_go("k", "9")
    assert some.leads.published == [["k"], ["8", "9"]]
    assert some.session.looked[1] == ([7], [(7, 8)]), "what was under way has ended before"


async def test_only_so_many_are_under_way_and_more_are_looked_for_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed = [str(number) for number in range(UNDER_WAY_MAX)]
    async with several(monkeypatch) as some:
        for number in range(UNDER_WAY_MAX + 1):
            assert not some.leads.doorbell.is_rung
            some.hand_over(number)
        assert some.leads.doorbell.is_rung
        await some.under_way(*handed)
        some.let_go(*handed[1:])
        await a_little_later()
        assert some.session.looked == [([], [])], "one is under way yet"
        some.let_go("0")
    assert [look for look, _ in some.session.looked] == [[], [*range(1, UNDER_WAY_MAX), 0]]
    assert some.leads.published == [[key] for key in handed]


async def test_when_a_look_is_due_nothing_new_goes_until_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is handed over, it is not put off."""
    async with several(monkeypatch) as some:
        some.hand_over(7)
        await some.under_way("7")
        some.leads.now += NEVER_S
        some.leads.doorbell.wake()  # as the clock would
        await a_little_later()
        some.hand_over(8)
        await a_little_later()
        assert some.leads.published == [["7"]]
        some.let_go("7")
    assert [look for look, _ in some.session.looked] == [[], [7]]


@pytest.mark.parametrize("other_is_confirmed", [True, False])
async def test_when_something_fails_nothing_new_goes_and_what_is_under_way_ends_before_the_relay_looks(
    monkeypatch: pytest.MonkeyPatch, other_is_confirmed: bool
) -> None:
    async with several(monkeypatch) as some:
        some.hand_over(7)
        some.hand_over(8)
        await some.under_way("7", "8")
        some.leads.refused = {"8"} if other_is_confirmed else {"7", "8"}
        some.let_go("8")
        await some.leads.until(lambda: some.leads.doorbell.is_rung)
        some.hand_over(9)
        await a_little_later()
        assert (some.leads.published, some.session.looked) == ([["7"], ["8"]], [([], [])])
        some.let_go("7")
    assert some.session.deleted == ([7] if other_is_confirmed else [])
    assert len(some.leads.rested) == (0 if other_is_confirmed else 1), "everything waits if nothing was confirmed"
    assert list(some.leads.relay._kept_back()) == (["8"] if other_is_confirmed else [])
    assert some.session.looked == [([], []), ([], [])]
    assert some.leads.told == ["8", "7"]


async def leading_on(some: Several) -> asyncio.Task[None]:
    """The relay, with 6 confirmed, and 7 and 8 under way."""
    connection: Any = some.session
    leading = asyncio.create_task(some.leads.relay._lead(connection))
    some.ticket = await some.leads.until_it_stands_by()
    for number in (6, 7, 8):
        some.hand_over(number)
    await some.under_way("6", "7", "8")
    some.let_go("6")
    await some.leads.until(lambda: some.leads.relay._confirmed == [6])
    return leading


async def test_who_is_cancelled_leaves_nothing_under_way_and_deletes_what_is_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = Several(monkeypatch)
    leading = await leading_on(some)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading
    assert under_way() == []
    assert (some.session.deleted, some.leads.doorbell.ticket()) == ([6], None)


async def test_nothing_new_goes_while_what_is_under_way_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    some = Several(monkeypatch)
    leading = await leading_on(some)

    def another(_: object) -> None:
        some.hand_over(9)

    under_way()[0].add_done_callback(another)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(leading, 10)
    await a_little_later()
    assert some.leads.published == [["6"], ["7"], ["8"]]


async def test_a_session_that_is_lost_while_it_deletes_ends_what_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.publishing.standing_by._DELETED_WITHIN_S", POLL_S)
    some = Several(monkeypatch)
    some.session.lost_for_good = True
    leading = await leading_on(some)
    with pytest.raises(OSError, match="the session is lost"):
        await asyncio.wait_for(leading, 10)
    assert under_way() == []


async def test_what_publishing_raises_comes_out_of_the_relay_once_the_others_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = Several(monkeypatch)
    leading = await leading_on(some)
    some.leads.broken = KeyError("planted")
    some.let_go("7")
    await a_little_later()
    some.hand_over(9)
    assert not leading.done()
    some.let_go("8")
    with pytest.raises(KeyError, match="planted"):
        await asyncio.wait_for(leading, 10)
    assert some.leads.published == [["6"], ["7"], ["8"]]
    assert some.session.deleted == [6, 8]


async def test_a_relay_is_in_trouble_while_one_is_stuck_and_no_other_was_confirmed_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with several(monkeypatch) as some:
        some.hand_over(7)
        some.hand_over(8)
        await some.under_way("7", "8")
        some.leads.now += STANDS_STILL_S - 1
        some.let_go("8")
        await some.leads.until(lambda: some.leads.relay._confirmed == [8])
        some.leads.now += STANDS_STILL_S - 1
        assert some.leads.relay.trouble is None
        some.leads.now += 1
        assert some.leads.relay.trouble == "stands still, with events waiting: the broker does not answer"
        some.let_go("7")
        await some.leads.until(lambda: some.leads.relay.trouble is None)
        some.leads.doorbell.ring()
