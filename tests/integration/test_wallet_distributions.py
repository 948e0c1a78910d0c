"""Distributions on a real PostgreSQL: each share once, whoever asks at once; and a reply is a hint."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from deploy.native import Runtime
from services.wallet.domain.accounts import AccountFrozenError, AccountNotFoundError, InsufficientFundsError
from services.wallet.domain.distributions import (
    AlreadyReceivedError,
    Distribution,
    DistributionClosedError,
    DistributionNotFoundError,
    NotForGiverError,
    NothingLeftError,
    Split,
)
from services.wallet.domain.quotes import LimitExceededError
from services.wallet.domain.receipts import (
    Outcome,
    Receipt,
    ReceiptKeyReusedError,
    ReceiptStatus,
    Refusal,
    Wanted,
    take,
)
from services.wallet.events import ShareAsked
from services.wallet.handlers.accounts import freeze, list_entries
from services.wallet.handlers.closing import close_over, tidy_receipts
from services.wallet.handlers.distributions import get_distribution
from services.wallet.handlers.receiving import begin_all, settle
from services.wallet.handlers.taking import lock_asked, on_share_asked
from services.wallet.http.receiving import Answered, NoOutcomeError, Receiving
from services.wallet.store.asking import Asked
from services.wallet.store.distributions import insert_distribution
from services.wallet.store.locking import lock_one
from services.wallet.store.taking import write_outcomes
from services.wallet.store.transfers import LostLockError
from shared.errors import TransientError, UnavailableError
from shared.event import EventData
from shared.reply import NoAnswerError
from tests.integration.wallets import ROOM, Wallet, event_of, opened_wallet
from tests.integration.world import eventually

RECEIVED, REFUSED, ASKED = ReceiptStatus.RECEIVED, ReceiptStatus.REFUSED, ReceiptStatus.ASKED
NOT_BEGUN = ReceiptStatus.NOT_BEGUN


@pytest.fixture
async def wallet(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wallet]:
    async with opened_wallet(servers, monkeypatch) as wallet:
        yield wallet


async def shown(wallet: Wallet, given: Distribution) -> Distribution:
    async with wallet.units.begin() as uow:
        return await get_distribution(uow, ROOM, given.token, given.giver_id)


async def end_its_time(wallet: Wallet) -> None:
    await wallet.change(
        "update distribution set opened_at = opened_at - interval '10 minutes',"
        " closes_at = closes_at - interval '10 minutes'"
    )


async def close(wallet: Wallet) -> int:
    async with wallet.units.begin() as uow:
        return await close_over(uow)


async def test_of_twenty_at_once_ten_take_a_share_each_and_ten_hear_that_nothing_is_left(wallet: Wallet) -> None:
    """Three workers, each with batches of its own; some of the twenty ask twice."""
    mine, others = await wallet.account(1_000), [await wallet.account() for _ in range(20)]
    given = await wallet.give(mine, 1_000, 10)
    assert ((await wallet.one(mine)).balance, await wallet.broken_rules()) == (0, []), "all of it leaves at once"
    users = [await wallet.owner(one) for one in others]
    asked = [await wallet.wish(given, user) for user in (*users, *users[:6])]
    batches = [asked[start : start + 4] for start in range(0, len(asked), 4)]
    await asyncio.gather(*(wallet.take(batch) for batch in (*batches, *batches)))
    ended = [await wallet.receipt(one) for one in asked]
    assert Counter(one.status for one in ended)[RECEIVED] == 10
    assert {one.reason for one in ended if one.status is REFUSED} <= {
        Refusal.NOTHING_LEFT, Refusal.RECEIVED_ALREADY
    }  # fmt: skip
    received = {one.user_id: one.amount for one in ended if one.status is RECEIVED}
    assert (len(received), sum(received.values()), min(received.values()) >= 1) == (10, 1_000, True)
    balances = {await wallet.owner(one): (await wallet.one(one)).balance for one in others}
    assert {user: balance for user, balance in balances.items() if balance} == received
    after = await shown(wallet, given)
    assert {share.receiver_id: share.amount for share in after.shares} == received
    assert after.closed_at is not None, "the last share closes it"
    assert await wallet.broken_rules() == []
    with pytest.raises(AlreadyReceivedError if users[0] in received else NothingLeftError):
        await wallet.wish(given, users[0])
    async with wallet.units.begin() as uow:
        labels = [one.label for one in await list_entries(uow, mine, None, 10)]
    assert labels == [f"distribution {given.token}", "paid in"]
    assert await wallet.query("select type from outbox") == ["distribution.closed"]


async def test_who_waited_for_another_gets_the_next_share(wallet: Wallet) -> None:
    given = await wallet.give(await wallet.account(1_000), 100, 5, Split.EVEN)
    first, second = [await wallet.wish(given, await wallet.owner(await wallet.account())) for _ in range(2)]
    asked = event_of(ShareAsked(receipt_id=first.id), str(given.id))
    async with wallet.units.begin() as uow:
        await lock_asked([asked], uow)
        uow.begin_event(asked.envelope)
        await on_share_asked(asked, uow)
        for locked in ("receipt", "distribution", "account where kind = 'distribution'"):
            with pytest.raises(TransientError, match="could not obtain lock"):
                await wallet.change(f"select from {locked} for no key update nowait")
        waiting = asyncio.create_task(wallet.take([second]))
        await eventually(lambda: wallet.query("select 1 from pg_locks where not granted"), "the second one waits")
    await waiting
    taken = "select receiver_id from distribution_share where receiver_id is not null order by number"
    assert await wallet.query(taken) == [first.user_id, second.user_id]
    assert await wallet.broken_rules() == []


async def test_a_lone_request_is_two_statements_besides_its_commit(wallet: Wallet) -> None:
    given = await wallet.give(await wallet.account(1_000), 100, 5)
    asked = [await wallet.wish(given, await wallet.owner(await wallet.account())) for _ in range(3)]
    statements: list[str] = []
    event.listen(
        wallet.database.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )
    await wallet.take(asked[:1])
    assert len(statements) == 2
    await wallet.take(asked[1:])
    assert len(statements) == 2 + 5, "a batch is read by four"


async def test_what_nobody_took_goes_back_once_with_what_it_used_of_the_day_and_the_token_is_free_again(
    wallet: Wallet,
) -> None:
    mine, other = await wallet.account(1_000), await wallet.account()
    given = await wallet.give(mine, 10, 3, Split.EVEN)
    assert [share.amount for share in given.shares] == [4, 3, 3]
    late = await wallet.wish(given, await wallet.owner(await wallet.account()))
    await wallet.take([await wallet.wish(given, await wallet.owner(other))])
    assert await close(wallet) == 0
    async with wallet.units.begin() as uow:
        assert not await insert_distribution(uow.connection, replace(given, id=mine)), "never two open ones alike"
        assert await insert_distribution(uow.connection, replace(given, id=mine, room_id="another"))
        await uow.connection.rollback()
    await end_its_time(wallet)
    async with wallet.units.begin() as uow:
        await freeze(uow, mine, frozen=True)
    closed = await asyncio.gather(*(close(wallet) for _ in range(3)))
    assert sum(closed) == 1
    await wallet.take([late])
    assert (await wallet.receipt(late)).reason is Refusal.OVER
    assert [(await wallet.one(one)).balance for one in (mine, other)] == [996, 4]
    assert await wallet.query("select sent from usage_day") == [4]
    after = await shown(wallet, given)
    assert (after.given_back, after.left, after.closed_at is not None) == (6, 0, True)
    assert await wallet.query("select type from outbox") == ["distribution.closed"]
    assert await wallet.broken_rules() == []
    with pytest.raises(DistributionClosedError):
        await wallet.wish(given, late.user_id)
    async with wallet.units.begin() as uow:
        assert await insert_distribution(uow.connection, replace(given, id=mine))
        await uow.connection.rollback()
    await wallet.change("update distribution set opened_at = opened_at - interval '7 days'")
    with pytest.raises(DistributionNotFoundError):
        await shown(wallet, given)


async def test_who_cannot_give_or_receive_is_told_why_and_nothing_moves(wallet: Wallet) -> None:
    mine, other = await wallet.account(1_000), await wallet.account()
    with pytest.raises(InsufficientFundsError):
        await wallet.give(mine, 1_001, 2)
    await wallet.change("update account_type set limit_one_time = 500")
    with pytest.raises(LimitExceededError):
        await wallet.give(mine, 501, 2)
    given = await wallet.give(mine, 500, 2)
    user = await wallet.owner(other)
    with pytest.raises(NotForGiverError):
        await wallet.wish(given, given.giver_id)
    for elsewhere in (replace(given, token="22222222"), replace(given, token=given.token[::-1])):
        if elsewhere.token != given.token:
            with pytest.raises(DistributionNotFoundError):
                await wallet.wish(elsewhere, user)
    with pytest.raises(AccountNotFoundError):
        await wallet.wish(given, await wallet.user())
    async with wallet.units.begin() as uow:
        await freeze(uow, other, frozen=True)
    with pytest.raises(AccountFrozenError):
        await wallet.wish(given, user)
    with pytest.raises(DistributionNotFoundError):
        await shown(wallet, replace(given, giver_id=user))
    assert (await wallet.one(mine)).balance == 500
    assert await wallet.query("select count(*) from receipt") == [0]
    assert await wallet.broken_rules() == []


async def test_what_is_not_begun_in_time_never_is_and_what_is_begun_is_left_to_who_began_it(
    wallet: Wallet,
) -> None:
    given = await wallet.give(await wallet.account(1_000), 100, 5)
    users = [await wallet.owner(await wallet.account()) for _ in range(4)]
    late, given_up, begun, tidied = [await wallet.wish(given, user) for user in users]
    await wallet.change(f"update receipt set begin_by = now() where id in ('{late.id}', '{tidied.id}')")
    await wallet.take([late])
    async with wallet.units.begin() as uow:
        assert (await settle(uow, given_up.id)).status is NOT_BEGUN
    await wallet.take([given_up])
    async with wallet.units.begin() as uow:
        await tidy_receipts(uow)
    async with wallet.database.engine.connect() as worker:
        await worker.exec_driver_sql(f"select * from receipt where id = '{begun.id}' for no key update")
        async with wallet.units.begin() as uow:
            assert (await settle(uow, begun.id)).status is ASKED
        await worker.rollback()
    await wallet.take([begun])
    ended = [await wallet.receipt(one) for one in (late, given_up, begun, tidied)]
    assert [one.status for one in ended] == [NOT_BEGUN, NOT_BEGUN, RECEIVED, NOT_BEGUN]
    assert (await shown(wallet, given)).left == 100 - ended[2].amount
    await wallet.change("update receipt set asked_at = now() - interval '8 days'")
    async with wallet.units.begin() as uow:
        await tidy_receipts(uow)
    assert await wallet.query("select status from receipt") == ["received"]
    assert await wallet.broken_rules() == []


async def test_the_same_key_is_one_receipt_until_that_came_to_nothing(wallet: Wallet) -> None:
    given, more = [await wallet.give(await wallet.account(1_000), 100, 5) for _ in range(2)]
    user = await wallet.owner(await wallet.account())
    first, again = await asyncio.gather(*(wallet.wish(given, user, "k") for _ in range(2)))
    assert first == again
    with pytest.raises(ReceiptKeyReusedError):
        await wallet.wish(more, user, "k")
    await wallet.change("update receipt set begin_by = now()")
    second = await wallet.wish(given, user, "k")
    assert (second.id != first.id, (await wallet.receipt(first)).status) == (True, NOT_BEGUN)
    await wallet.take([first, second])
    third = await wallet.wish(given, user, "k")
    assert (third.id, third.status) == (second.id, RECEIVED)
    assert await wallet.query("select count(*) from distribution_share where receiver_id is not null") == [1]


class Worker:
    """What asks the worker, and what comes of that: not the broker's part, which `shared/reply` proves."""

    def __init__(self, *acts: Callable[[UUID], Awaitable[None]], error: Exception | None = None) -> None:
        self.acts, self.error = acts, error

    async def ask(self, channel: str, data: EventData, timeout_s: float, *, subject: str | None = None) -> object:
        assert (channel, timeout_s < 10) == ("share", True)
        for act in self.acts:
            await act(UUID(data.model_dump(mode="json")["receipt_id"]))
        if self.error is not None:
            raise self.error
        return {"receipt_id": "made up", "amount": 1_000_000}


async def test_a_reply_is_a_hint_and_the_row_the_truth(wallet: Wallet) -> None:
    given = await wallet.give(await wallet.account(1_000), 100, 5, Split.EVEN)
    user = await wallet.owner(await wallet.account())
    probe = await wallet.wish(given, await wallet.owner(await wallet.account()))

    async def work(receipt_id: UUID) -> None:
        await wallet.take([replace(probe, id=receipt_id)])

    async def outcome(worker: Worker) -> Answered | NoOutcomeError:
        wanted = Wanted(user_id=user, room_id=ROOM, token=given.token, key="k")
        try:
            return await Receiving(wallet.units, worker).receive(wanted)  # type: ignore[arg-type]
        except NoOutcomeError as error:
            return error

    forged = await outcome(Worker())
    assert isinstance(forged, NoOutcomeError), "an answer that nothing stands behind is none"
    for error, late in ((NoAnswerError("late"), True), (UnavailableError("away"), False)):
        nothing = await outcome(Worker(error=error))
        assert isinstance(nothing, NoOutcomeError)
        assert nothing.late is late
    assert await wallet.query("select distinct status from receipt where key = 'k'") == ["not_begun"]
    lost = await outcome(Worker(work, error=NoAnswerError("late")))
    assert isinstance(lost, Answered)
    assert (lost.receipt.amount, lost.replayed) == (20, False), "a reply that is lost loses nothing"
    again = await outcome(Worker(error=AssertionError("asked again")))
    assert again == replace(lost, replayed=True)
    assert await wallet.broken_rules() == []


async def test_who_waits_for_the_worker_holds_no_connection_and_many_are_written_down_by_few_statements(
    wallet: Wallet,
) -> None:
    """Thirty at once, of whom one is the giver and one asks again with the same key."""
    given = await wallet.give(await wallet.account(1_000), 100, 30, Split.EVEN)
    users = [await wallet.owner(await wallet.account()) for _ in range(28)]
    probe = await wallet.wish(given, await wallet.owner(await wallet.account()))
    asked: list[UUID] = []
    all_asked, answered = asyncio.Event(), asyncio.Event()

    async def wait(receipt_id: UUID) -> None:
        asked.append(receipt_id)
        if len(asked) == 29:
            all_asked.set()
        await answered.wait()

    receiving = Receiving(wallet.units, Worker(wait))  # type: ignore[arg-type]
    statements: list[str] = []
    event.listen(
        wallet.database.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )
    wishes = [
        Wanted(user_id=user, room_id=ROOM, token=given.token, key="k")
        for user in (*users, given.giver_id, users[0])
    ]
    waiting = [asyncio.ensure_future(receiving.receive(one)) for one in wishes]
    await all_asked.wait()
    assert wallet.database.engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert len(statements) <= 6, "one for all, and some for the key that came twice"
    assert len(set(asked)) == 28
    await wallet.take([replace(probe, id=one) for one in dict.fromkeys(asked)])
    answered.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in outcomes if not isinstance(one, Answered)] == [NotForGiverError]
    received = [one.receipt for one in outcomes if isinstance(one, Answered)]
    assert {one.status for one in received} == {RECEIVED}
    assert (len(received), len({one.id for one in received})) == (29, 28)
    assert await wallet.broken_rules() == []


async def test_many_who_ask_with_the_same_keys_in_opposite_orders_never_wait_for_each_other(
    wallet: Wallet,
) -> None:
    """PostgreSQL would end one of two such statements as a deadlock."""
    given = await wallet.give(await wallet.account(1_000), 100, 50)
    users = [await wallet.owner(await wallet.account()) for _ in range(50)]

    async def asked(number: int, order: int) -> set[UUID]:
        wishes = [
            Wanted(user_id=user, room_id=ROOM, token=given.token, key=str(number)) for user in users[::order]
        ]
        async with wallet.units.statement() as connection:
            outcomes = await begin_all(connection, [Asked(uuid4(), one) for one in wishes])
        return {one.id for one in outcomes if isinstance(one, Receipt)}

    for number in range(5):
        forth, back = await asyncio.gather(asked(number, 1), asked(number, -1))
        assert forth == back
        assert len(forth) == 50


async def test_a_lost_lock_is_found_before_anything_is_committed(wallet: Wallet) -> None:
    """Planted: who writes down a share, or a receipt, that somebody else had meanwhile."""
    given = await wallet.give(await wallet.account(1_000), 100, 5)
    users = [await wallet.owner(await wallet.account()) for _ in range(3)]
    first, second, given_up = [await wallet.wish(given, user) for user in users]
    await wallet.take([first])
    async with wallet.units.begin() as uow:
        assert (await settle(uow, given_up.id)).status is NOT_BEGUN
    taken = next(share for share in (await shown(wallet, given)).shares if share.receiver_id)
    had_meanwhile = Outcome(second, given, replace(taken, receiver_id=second.user_id))
    ended_meanwhile = Outcome(await wallet.receipt(first), given)
    for lost in (had_meanwhile, ended_meanwhile):
        async with wallet.units.begin() as uow:
            with pytest.raises(LostLockError):
                await write_outcomes(uow.connection, [lost], [])
    async with wallet.units.begin() as uow:
        found = await lock_one(uow.connection, second.id)
        assert found is not None
        one = take(found.receipt, found.distribution, {each.id: each for each in found.accounts}, found.now)
        changes = list(zip(found.accounts, one.accounts, strict=True))
        elsewhere = (replace(changes[0][0], id=uuid4()), replace(changes[0][1], id=uuid4()))
        for lost, changed in (
            (replace(one, share=taken), changes),
            (replace(one, receipt=replace(one.receipt, id=given_up.id)), changes),
            (one, [elsewhere, changes[1]]),
        ):
            async with uow.connection.begin_nested() as savepoint:
                with pytest.raises(LostLockError):
                    await write_outcomes(uow.connection, [lost], changed)
                await savepoint.rollback()
        await write_outcomes(uow.connection, [one], changes)
    assert await wallet.query("select count(*) from distribution_share where receiver_id is not null") == [2]
    with pytest.raises(IntegrityError, match="uq_distribution_share_receiver_id"):
        await wallet.change(
            "update distribution_share s set receiver_id = t.receiver_id, taken_at = now(),"
            f" receipt_id = '{given_up.id}' from distribution_share t where t.receiver_id is not null"
            " and s.receiver_id is null and s.number = (select max(number) from distribution_share)"
        )
    assert await wallet.broken_rules() == []
