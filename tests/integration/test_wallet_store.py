"""The wallet's money in a real PostgreSQL: many at once, and rules that are broken on purpose."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from deploy.native import Runtime
from services.wallet import app
from services.wallet.domain.accounts import Account, InsufficientFundsError
from services.wallet.domain.quotes import LimitExceededError
from services.wallet.domain.transfers import (
    FailureReason,
    Transfer,
    TransferEndedError,
    TransferNotFoundError,
    TransferStatus,
)
from services.wallet.handlers.accounts import adjust, freeze, list_entries
from services.wallet.handlers.transfers import get_transfer
from services.wallet.store.accounts import find_member, lock_accounts
from services.wallet.store.audit import RULES, audit
from services.wallet.store.transfers import LostLockError, end_transfers
from shared.errors import BusinessError
from tests.integration.wallets import FEES, Wallet, opened_wallet

WAIT_S = 60.0
"""Bounds what would wait for ever where nobody answers before the lock is free."""


@pytest.fixture
async def wallet(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wallet]:
    async with opened_wallet(servers, monkeypatch) as wallet:
        yield wallet


async def test_a_transfer_is_held_then_posted_with_its_fee_and_told_of(wallet: Wallet) -> None:
    sender, receiver = await wallet.account(1_000), await wallet.account()
    transfer = await wallet.ask(sender, receiver, 600, FEES)
    assert ((await wallet.one(sender)).held, (await wallet.one(sender)).available) == (605, 395)
    await wallet.execute([transfer])
    assert [((await wallet.one(one)).balance, (await wallet.one(one)).held) for one in (sender, receiver)] == [
        (395, 0),
        (600, 0),
    ]
    assert (await wallet.transfer(transfer)).status is TransferStatus.COMPLETED
    assert await wallet.query("select type from outbox order by position") == [
        "transfer.requested",
        "transfer.completed",
        "transfer.received",
    ]
    async with wallet.units.begin() as uow:
        mine = await list_entries(uow, sender, None, 10)
        theirs = await list_entries(uow, receiver, None, 10)
        older = await list_entries(uow, sender, mine[0].sequence, 10)
    assert [(one.amount, one.label, one.fee) for one in mine] == [(-605, "rent", 5), (1_000, "paid in", None)]
    assert [(one.amount, one.label) for one in theirs] == [(600, "from Ada")]
    assert older == mine[1:]
    assert await wallet.broken_rules() == []


async def test_of_twenty_at_once_as_many_are_taken_as_can_be_paid_and_the_others_hear_what_is_left(
    wallet: Wallet,
) -> None:
    """Ten transfers, and ten withdrawals by the house, which asks for no member's lock."""
    sender, receiver = await wallet.account(1_050), await wallet.account()

    async def withdraw() -> Account:
        async with wallet.units.begin() as uow:
            return await adjust(uow, sender, -105, "paid out", "teller")

    asked = [make() for _ in range(10) for make in (lambda: wallet.ask(sender, receiver, 100, FEES), withdraw)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    accepted = [one for one in answers if isinstance(one, Transfer)]
    withdrawn = [one for one in answers if isinstance(one, Account)]
    refused = [one.available for one in answers if isinstance(one, InsufficientFundsError)]
    assert (len(accepted) + len(withdrawn), refused) == (10, [0] * 10)
    await asyncio.gather(*(wallet.execute(accepted[start::2]) for start in range(2)))
    assert ((await wallet.one(sender)).balance, (await wallet.one(receiver)).balance) == (0, 100 * len(accepted))
    assert await wallet.broken_rules() == []


async def test_what_is_more_than_there_is_is_refused_at_once_though_another_holds_the_sender(
    wallet: Wallet,
) -> None:
    sender, receiver = await wallet.account(100), await wallet.account()
    async with asyncio.timeout(WAIT_S), wallet.units.begin() as uow:
        assert await find_member(uow.connection, await wallet.owner(sender), lock=True)
        await lock_accounts(uow.connection, [sender])
        with pytest.raises(InsufficientFundsError) as refused:
            await wallet.ask(sender, receiver, 101)
    assert refused.value.available == 100


async def test_a_user_s_total_and_free_transfers_hold_over_all_accounts_at_once(wallet: Wallet) -> None:
    user = await wallet.user(limit_total=300, free_transfers=2)
    mine = [await wallet.account(10_000, user), await wallet.account(10_000, user)]
    receiver = await wallet.account()
    answers = await asyncio.gather(
        *(wallet.ask(mine[number % 2], receiver, 100, FEES) for number in range(8)), return_exceptions=True
    )
    accepted = [one for one in answers if isinstance(one, Transfer)]
    assert sorted(one.fee for one in accepted) == [0, 0, 5]
    assert [one.left for one in answers if isinstance(one, LimitExceededError)] == [0] * 5
    assert await wallet.broken_rules() == []
    await wallet.cancel(next(one for one in accepted if one.free))
    again = await wallet.ask(mine[0], receiver, 100, FEES)
    assert again.free, "a cancelled transfer gives back what it used of the day"


async def test_sixteen_tasks_over_five_accounts_lose_double_and_overdraw_nothing(wallet: Wallet) -> None:
    """One account is in every second transfer; some are cancelled, some executed twice, whole batches at once."""
    chance = random.Random(12)
    everybody = [await wallet.account(2_000) for _ in range(5)]
    asked: list[Transfer] = []

    async def member(seed: int) -> None:
        mine = random.Random(seed)
        for _ in range(4):
            other, amount = mine.choice(everybody[1:]), mine.randint(1, 900)
            pair = [everybody[0], other] if mine.random() < 0.5 else mine.sample(everybody, 2)
            mine.shuffle(pair)
            with suppress(BusinessError):
                asked.append(await wallet.ask(pair[0], pair[1], amount, FEES))
            if asked and mine.random() < 0.2:
                with suppress(TransferEndedError):
                    await wallet.cancel(mine.choice(asked))
            if asked and mine.random() < 0.5:
                await wallet.execute(mine.choices(asked, k=6))

    await asyncio.gather(*(member(chance.randrange(2**32)) for _ in range(16)))
    await wallet.execute(asked)
    ended = [await wallet.transfer(one) for one in asked]
    assert {one.status for one in ended} <= {TransferStatus.COMPLETED, TransferStatus.CANCELLED}
    paid = sum(one.fee for one in ended if one.status is TransferStatus.COMPLETED)
    rows = [await wallet.one(one) for one in everybody]
    assert sum(one.balance for one in rows) == 10_000 - paid
    assert [one.held for one in rows] == [0] * 5
    told = await wallet.query(
        "select type from outbox where type not in ('transfer.requested', 'transfer.received')"
    )
    assert len(told) == len(ended), "each ended once"
    assert await wallet.broken_rules() == []


async def test_a_transfer_to_an_account_that_was_frozen_meanwhile_fails_and_gives_everything_back(
    wallet: Wallet,
) -> None:
    sender, receiver = await wallet.account(1_000), await wallet.account()
    transfer = await wallet.ask(sender, receiver, 600)
    async with wallet.units.begin() as uow:
        await freeze(uow, receiver, frozen=True)
    await wallet.execute([transfer])
    failed = await wallet.transfer(transfer)
    assert (failed.status, failed.reason) == (TransferStatus.FAILED, FailureReason.RECEIVER_FROZEN)
    assert (await wallet.one(sender)).available == 1_000
    assert await wallet.query("select sent from usage_day") == [0]
    assert await wallet.broken_rules() == []


async def test_a_transfer_that_ended_stays_so_and_one_that_is_not_there_is_refused(wallet: Wallet) -> None:
    sender, receiver = await wallet.account(1_000), await wallet.account()
    transfer = await wallet.ask(sender, receiver, 600)
    await wallet.cancel(transfer)
    await wallet.execute([transfer, transfer])
    with pytest.raises(TransferEndedError):
        await wallet.cancel(transfer)
    assert (await wallet.one(sender)).balance == 1_000
    async with wallet.units.begin() as uow:
        with pytest.raises(LostLockError):
            await end_transfers(uow.connection, [await get_transfer(uow, transfer.id)])
    unknown = Transfer(**{**{name: getattr(transfer, name) for name in Transfer.__slots__}, "id": uuid4()})
    with pytest.raises(TransferNotFoundError):
        await wallet.execute([unknown])


PLANTED = {
    "every movement sums to zero": "update posting set amount = amount + 1 where sequence = 1",
    "every balance equals its postings": "update account set balance = balance + 1 where kind = 'member'",
    "nothing is negative": "update account set balance = held - 1 where held > 0",
    "what is held is what pending transfers need": "update account set held = held - 1 where held > 0",
    "a completed transfer has its own postings, and no other has any": """
        update transfer set status = 'cancelled' where status = 'completed'
    """,
    "every posting is of a movement, and of an account in its currency": "delete from adjustment",
    "what a day has used is what was sent": "update usage_day set sent = sent + 1",
    "a distribution's account holds its untaken shares, and nothing once it is closed": """
        update distribution set closed_at = now() where closed_at is null
    """,
    "a distribution is its shares: those taken, and those left or given back": """
        update distribution_share set amount = amount + 1 where receiver_id is null
    """,
    "opening, taking and giving back are each their own postings": """
        update posting set amount = amount + sign(amount)
         where movement_id in (select id from receipt where status = 'received')
    """,
    "a share that is taken is one receipt's, and a received receipt has its share": """
        update receipt set status = 'not_begun', amount = 0 where status = 'received'
    """,
    "a distribution that is over for a minute is closed": """
        update distribution set closes_at = now() - interval '2 minutes' where closed_at is null
    """,
}


async def test_the_audit_finds_each_rule_broken_and_the_tables_refuse_what_they_can(wallet: Wallet) -> None:
    sender, receiver = await wallet.account(1_000), await wallet.account()
    await wallet.execute([await wallet.ask(sender, receiver, 100, FEES)])
    await wallet.ask(sender, receiver, 100, FEES)
    given = await wallet.give(sender, 10, 3)
    await wallet.take([await wallet.wish(given, await wallet.owner(receiver))])
    assert await wallet.broken_rules() == []
    assert PLANTED.keys() == RULES.keys()
    for rule, planted in PLANTED.items():
        async with wallet.database.engine.connect() as connection:
            await connection.execute(text("alter table posting disable trigger posting_is_for_good"))
            await connection.execute(text("alter table account drop constraint account_available"))
            await connection.execute(text(planted))
            assert rule in {finding.rule for finding in await audit(connection)}
            await connection.rollback()
    with pytest.raises(IntegrityError, match="account_available"):
        await wallet.query(PLANTED["nothing is negative"] + " returning id")
    for forbidden in ("update posting set amount = 1", "delete from posting", "truncate posting"):
        with pytest.raises(DBAPIError, match="never changed or deleted"):
            await wallet.query(forbidden)


async def test_the_audit_is_a_command_with_a_line_for_each_rule_that_fails_where_one_is_broken(
    wallet: Wallet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"BROKER": "rabbit", "HTTP_PORT": "1", "POSTGRES_DSN": wallet.dsn, "REDIS_URL": "redis://-"}
    for name, value in (told | {"RABBIT_URL": "amqp://-"}).items():
        monkeypatch.setenv(f"TANDEM_{name}", value)
    await wallet.account(1_000)
    assert await asyncio.to_thread(app.main, ["audit"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"holds   {rule}" for rule in RULES]
    await wallet.change("update account set balance = balance + 1 where kind = 'member'")
    assert await asyncio.to_thread(app.main, ["audit"]) == 1
    broken = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("holds")]
    assert broken[0] == "BROKEN  every balance equals its postings"
    assert broken[1].endswith("balance 1001, postings 1000")
    monkeypatch.setenv("TANDEM_POSTGRES_DSN", "postgresql://nobody@127.0.0.1:1/wallet")
    assert await asyncio.to_thread(app.main, ["audit"]) == 2
