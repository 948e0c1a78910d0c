"""A wallet with one part broken is found out by what `make faults` checks of money; the whole wallet is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text

from deploy.native import Runtime
from faults.distributions.checker import DistributionFindings, Given, ReceiptFound, Told, check
from faults.distributions.found import read
from faults.transfers import checker as transfers_checker
from faults.wallet.audit import places_of
from services.wallet.domain import receipts as receipt_rules
from services.wallet.domain import transfers as transfer_rules
from services.wallet.domain.accounts import Account, release
from services.wallet.domain.distributions import Distribution, Split
from services.wallet.domain.postings import Posting
from services.wallet.domain.receipts import Receipt, ReceiptStatus, Wanted
from services.wallet.events import ShareAsked
from services.wallet.handlers.taking import lock_asked, on_share_asked
from services.wallet.http.receiving import Receiving
from services.wallet.store import accounts as account_rows
from services.wallet.store import distributions as distribution_rows
from services.wallet.store import locking as locking_rows
from services.wallet.store import taking as taking_rows
from services.wallet.store.audit import audit, begin_snapshot, report
from services.wallet.store.tables import account
from shared.event import EventData
from tests.integration.wallets import ROOM, Wallet, event_of, opened_wallet

SHARE = 20
WAIT_S = 60.0
"""Bounds what would wait for ever where a lock is not as lost as it should be."""


@pytest.fixture
async def wallet(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wallet]:
    async with opened_wallet(servers, monkeypatch) as wallet:
        yield wallet


class Room:
    """One distribution of five equal shares, and what those were told who asked for one."""

    def __init__(self, wallet: Wallet, given: Distribution) -> None:
        self.wallet = wallet
        self.given = given
        self.told = Told(asked={ROOM: Given(given.giver_id, given.amount, given.people)}, given={ROOM})

    @classmethod
    async def opened(cls, wallet: Wallet) -> Room:
        return cls(wallet, await wallet.give(await wallet.account(1_000), 5 * SHARE, 5, Split.EVEN))

    async def asks(self) -> Receipt:
        """Somebody new."""
        return await self.wallet.wish(self.given, await self.wallet.owner(await self.wallet.account()))

    def tells(self, ended: Receipt) -> None:
        """A client is answered."""
        found = ReceiptFound(ended.id, ended.status.value, ended.amount)
        self.told.received[ROOM, ended.user_id] = found

    async def verdict(self) -> DistributionFindings:
        connection = await asyncpg.connect(self.wallet.dsn)
        try:
            found = await read(connection.fetch)
        finally:
            await connection.close()
        return check(self.told, found, await audited(self.wallet))


async def audited(wallet: Wallet) -> list[str]:
    """As `make faults` understands what `make audit` prints."""
    async with wallet.database.transaction() as connection:
        await begin_snapshot(connection)
        return places_of("\n".join(report(await audit(connection))))


@pytest.fixture
async def room(wallet: Wallet) -> Room:
    return await Room.opened(wallet)


@contextmanager
def sabotaged(owner: ModuleType | type, name: str, broken: Any) -> Iterator[None]:
    """The part is broken within; fails where there is none any more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, broken, raising=True)
        yield


async def test_a_whole_wallet_is_found_sound(room: Room) -> None:
    asked = [await room.asks() for _ in range(6)]
    await asyncio.gather(*(room.wallet.take([one]) for one in asked))
    for one in asked:
        ended = await room.wallet.receipt(one)
        if ended.status is ReceiptStatus.RECEIVED:
            room.tells(ended)
        else:
            room.told.refused[ROOM, one.user_id] = "nothing-left"
    verdict = await room.verdict()
    assert verdict.sound, verdict
    assert (verdict.given, verdict.received, verdict.refused) == (1, 5, 1)


def without_locks() -> Sequence[tuple[ModuleType, str, Any]]:
    """Whoever reads may read beside another, and what is taken is taken over."""
    free = " and s.receiver_id is null"
    many, one = taking_rows._WRITE.text, taking_rows._WRITE_ONE.text
    assert free in many
    assert free in one
    return (
        (distribution_rows, "_LOCK", distribution_rows._LOCK.with_for_update(read=True, key_share=True)),
        (
            locking_rows,
            "_LOCK_ONE",
            text(locking_rows._LOCK_ONE.text.replace("for no key update", "for key share")),
        ),
        (taking_rows, "_WRITE", text(many.replace(free, ""))),
        (taking_rows, "_WRITE_ONE", text(one.replace(free, ""))),
        (
            account_rows,
            "_LOCK_ACCOUNTS_NOW",
            account_rows._LOCK_ACCOUNTS_NOW.with_for_update(read=True, key_share=True, of=account),
        ),
    )


async def test_a_lost_lock_by_which_a_share_is_taken_twice_is_found(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name, broken in without_locks():
        monkeypatch.setattr(owner, name, broken)
    first, second = await room.asks(), await room.asks()
    event = event_of(ShareAsked(receipt_id=first.id), str(room.given.id))
    async with asyncio.timeout(WAIT_S), room.wallet.units.begin() as uow:
        await lock_asked([event], uow)
        uow.begin_event(event.envelope)
        await on_share_asked(event, uow)
        await room.wallet.take([second])
    for one in (first, second):
        room.tells(await room.wallet.receipt(one))
    verdict = await room.verdict()
    assert verdict.lost == [f"{second.user_id} in {ROOM}"], "it was told of a share that is another's now"
    assert verdict.wrong
    assert any(place.startswith("a distribution's account holds its untaken shares") for place in verdict.broken)


class Worker:
    """Answers, and does nothing."""

    async def ask(
        self, _channel: str, data: EventData, _timeout_s: float, *, subject: str | None = None
    ) -> object:
        return {"receipt_id": data.model_dump(mode="json")["receipt_id"], "amount": SHARE, "subject": subject}


async def test_a_reply_that_is_taken_for_the_truth_is_found(room: Room) -> None:
    async def as_replied(_self: Receiving, receipt: Receipt, *, late: bool) -> Receipt:
        assert not late
        return replace(receipt, status=ReceiptStatus.RECEIVED, amount=SHARE)

    user_id = await room.wallet.owner(await room.wallet.account())
    wanted = Wanted(user_id=user_id, room_id=ROOM, token=room.given.token, key="k")
    with sabotaged(Receiving, "_settled", as_replied):
        worker: Any = Worker()
        room.tells((await Receiving(room.wallet.units, worker).receive(wanted)).receipt)
    verdict = await room.verdict()
    assert {name for name, found in verdict.damage().items() if found} == {"lost", "unended"}


async def test_postings_that_do_not_sum_are_found(room: Room) -> None:
    def unbalanced(postings: Iterator[Posting]) -> tuple[Posting, ...]:
        giver, receiver = postings
        return giver, replace(receiver, amount=receiver.amount + 1)

    asked = await room.asks()
    with sabotaged(receipt_rules, "balanced", unbalanced):
        await room.wallet.take([asked])
    room.tells(await room.wallet.receipt(asked))
    broken = {place.partition(":")[0] for place in (await room.verdict()).broken}
    assert broken >= {"every movement sums to zero", "opening, taking and giving back are each their own postings"}


async def test_a_hold_that_is_released_twice_is_found(wallet: Wallet) -> None:
    def twice(account: Account, amount: int) -> Account:
        return release(release(account, amount), amount)

    sender, receiver = await wallet.account(1_000), await wallet.account()
    done, pending = [await wallet.ask(sender, receiver, 100) for _ in range(2)]
    with sabotaged(transfer_rules, "release", twice):
        await wallet.execute([done])
    told = transfers_checker.Told(acknowledged={one.id: asked(sender, receiver) for one in (done, pending)})
    rows = [
        transfers_checker.TransferFound(one.id, asked(sender, receiver), (await wallet.transfer(one)).status.value)
        for one in (done, pending)
    ]
    verdict = transfers_checker.check(told, rows, await audited(wallet))
    assert [place.partition(":")[0] for place in verdict.broken] == ["what is held is what pending transfers need"]
    assert verdict.unended == [str(pending.id)]


def asked(sender: UUID, receiver: UUID) -> transfers_checker.Asked:
    return transfers_checker.Asked(sender, receiver, 100)
