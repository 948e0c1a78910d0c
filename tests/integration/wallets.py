"""A wallet on a database of its own, and what its API and its worker would do, done by a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from deploy.native import Runtime
from services.wallet.domain import limits
from services.wallet.domain.accounts import Account
from services.wallet.domain.distributions import Distribution, Split
from services.wallet.domain.fees import FREE, FeeRules, fee_rules
from services.wallet.domain.limits import AccountType, Limits
from services.wallet.domain.receipts import Receipt, Wanted
from services.wallet.domain.transfers import Labels, Transfer
from services.wallet.events import ShareAsked, TransferRequested
from services.wallet.handlers.accounts import adjust, get_account, open_account, record_account_type
from services.wallet.handlers.distributions import Gift, open_distribution
from services.wallet.handlers.execution import lock_batch, on_transfer_requested
from services.wallet.handlers.passwords import hash_password
from services.wallet.handlers.receiving import begin, get_receipt
from services.wallet.handlers.taking import lock_asked, on_share_asked
from services.wallet.handlers.transfers import Wish, cancel_transfer, get_transfer, request_transfer
from services.wallet.store import accounts as account_rows
from services.wallet.store.audit import audit, begin_snapshot
from services.wallet.store.sign_in import INSERT_SIGN_IN_IF_NEW
from shared.database import Database
from shared.envelope import Envelope
from shared.event import DataT, Event
from shared.publishing.uow import UnitsOfWork
from shared.settings import Settings
from tests.integration.databases import migrated_database
from tests.integration.world import _telemetry

LABELS = Labels("rent", "from Ada")
PASSWORD = "open, sesame"
ROOM = "room"
FEES = fee_rules("0:5+0")
ELSEWHERE = {"redis_url": "redis://-", "rabbit_url": "amqp://-", "http_port": 1}


class Wallet:
    """A wallet of its own; what its API and its worker would do, done here."""

    def __init__(self, database: Database, dsn: str) -> None:
        self.database = database
        self.dsn = dsn
        self.units = UnitsOfWork(database, "wallet", _telemetry("rabbit").spans)

    async def user(self, *, limit_total: int | None = None, free_transfers: int = 0) -> UUID:
        user_id = uuid4()
        async with self.units.begin() as uow:
            uow.tell(account_rows.RECORD_MEMBER, {"user_id": user_id, "active": True, "version": 1})
            limits = {"of_user": user_id, "new_limit_total": limit_total, "new_free_transfers": free_transfers}
            uow.tell(account_rows.SET_MEMBER_LIMITS, limits)
        return user_id

    async def account(self, paid_in: int = 0, user_id: UUID | None = None) -> UUID:
        owner = user_id or await self.user()
        async with self.units.begin() as uow:
            record_account_type(uow, AccountType("plain", Limits(10**9, 10**9)))
            account_id = open_account(uow, owner, "plain", "KRW")
        if paid_in:
            async with self.units.begin() as uow:
                await adjust(uow, account_id, paid_in, "paid in", "teller")
        return account_id

    async def ask(self, sender: UUID, receiver: UUID, amount: int, fees: FeeRules = FREE) -> Transfer:
        async with self.units.begin() as uow:
            user_id = (await get_account(uow, sender)).user_id
            assert user_id is not None
            wish = Wish(user_id=user_id, sender_id=sender, receiver_id=receiver, amount=amount, labels=LABELS)
            return await request_transfer(uow, wish, fees)

    async def execute(self, transfers: Iterable[Transfer]) -> None:
        """As the pipeline does with a batch, in one transaction."""
        events = [requested(transfer) for transfer in transfers]
        async with self.units.begin() as uow:
            await lock_batch(events, uow)
            for event in events:
                uow.begin_event(event.envelope)
                await on_transfer_requested(event, uow)

    async def cancel(self, transfer: Transfer) -> Transfer:
        async with self.units.begin() as uow:
            return await cancel_transfer(uow, transfer.id)

    async def transfer(self, of: Transfer) -> Transfer:
        return await self.transfer_of(of.id)

    async def transfer_of(self, transfer_id: UUID) -> Transfer:
        async with self.units.begin() as uow:
            return await get_transfer(uow, transfer_id)

    async def owner(self, account_id: UUID) -> UUID:
        user_id = (await self.one(account_id)).user_id
        assert user_id is not None
        return user_id

    async def give(self, account_id: UUID, amount: int, people: int, split: Split = Split.RANDOM) -> Distribution:
        gift = Gift(
            user_id=await self.owner(account_id),
            room_id=ROOM,
            amount=amount,
            people=people,
            split=split,
            account_id=account_id,
        )
        async with self.units.begin() as uow:
            return await open_distribution(uow, gift)

    async def wish(self, given: Distribution, user_id: UUID, key: str | None = None) -> Receipt:
        """As the API does before it asks the worker."""
        wanted = Wanted(user_id=user_id, room_id=ROOM, token=given.token, key=key)
        async with self.units.begin() as uow:
            return await begin(uow, wanted, uuid4())

    async def take(self, receipts: Iterable[Receipt]) -> None:
        """As the pipeline does with a batch of requests, in one transaction."""
        events = [event_of(ShareAsked(receipt_id=one.id), str(one.distribution_id)) for one in receipts]
        async with self.units.begin() as uow:
            await lock_asked(events, uow)
            for event in events:
                uow.begin_event(event.envelope)
                await on_share_asked(event, uow)

    async def receipt(self, of: Receipt) -> Receipt:
        async with self.units.begin() as uow:
            return await get_receipt(uow, of.id, of.user_id)

    async def one(self, account_id: UUID) -> Account:
        async with self.units.begin() as uow:
            return await get_account(uow, account_id)

    async def broken_rules(self) -> list[str]:
        async with self.database.transaction() as connection:
            await begin_snapshot(connection)
            return [finding.rule for finding in await audit(connection)]

    async def can_sign_in(self, user_id: UUID, name: str, password: str = PASSWORD) -> None:
        row = {
            "name": name,
            "role": "member",
            "user_id": user_id,
            "password_hash": hash_password(password),
        }
        async with self.units.begin() as uow:
            uow.tell(INSERT_SIGN_IN_IF_NEW, row)

    async def change(self, statement: str) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(text(statement))

    async def query(self, statement: str) -> list[Any]:
        async with self.database.transaction() as connection:
            return list((await connection.execute(text(statement))).scalars())


def requested(transfer: Transfer) -> Event[TransferRequested]:
    return event_of(TransferRequested.of(transfer), str(transfer.sender_id))


def event_of(data: DataT, key: str) -> Event[DataT]:
    """As it comes from the broker."""
    envelope = Envelope(
        source="/services/wallet",
        type=data.event_type,
        partitionkey=key,
        dataschema=data.schema_uri(),
        data=data.model_dump(mode="json"),
    )
    return Event(envelope, data)


@asynccontextmanager
async def opened_wallet(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wallet]:
    """A wallet where it is about noon, so that no day ends while a test counts what it has used."""
    monkeypatch.setattr(limits, "DAY_ZONE", f"Etc/GMT{datetime.now(UTC).hour - 12:+d}")
    dsn = await migrated_database(servers, "wallet")
    database = Database(Settings.from_environment(broker="rabbit", postgres_dsn=dsn, **ELSEWHERE), "wallet")
    try:
        yield Wallet(database, dsn)
    finally:
        await database.close()
