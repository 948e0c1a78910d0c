"""The wallet's tables. Amounts are in the minor unit of the account's currency."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.wallet.domain.postings import BALANCE_MAX

metadata = MetaData()


def _time(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


member = Table(
    "member",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("active", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("limit_total", BigInteger),
    Column("free_transfers", Integer, nullable=False, server_default="0"),
    CheckConstraint("limit_total >= 0 and free_transfers >= 0", name="member_limits"),
)

account_type = Table(
    "account_type",
    metadata,
    Column("name", Text, primary_key=True),
    Column("limit_one_time", BigInteger, nullable=False),
    Column("limit_daily", BigInteger, nullable=False),
    CheckConstraint("limit_one_time >= 0 and limit_daily >= 0", name="account_type_limits"),
)

account = Table(
    "account",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("user_id", Uuid),
    # Null in the house's accounts, from which nobody sends.
    Column("type", Text),
    # Null where the type's limit holds.
    Column("limit_one_time", BigInteger),
    Column("limit_daily", BigInteger),
    Column("balance", BigInteger, nullable=False, server_default="0"),
    Column("held", BigInteger, nullable=False, server_default="0"),
    Column("frozen", Boolean, nullable=False, server_default=text("false")),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("kind in ('member', 'world', 'fees', 'distribution')", name="account_kind"),
    CheckConstraint("(kind = 'member') = (user_id is not null and type is not null)", name="account_owner"),
    CheckConstraint(f"held >= 0 and held <= balance and balance <= {BALANCE_MAX}", name="account_available"),
    CheckConstraint("kind in ('member', 'distribution') or balance = 0", name="account_of_the_house"),
    CheckConstraint("limit_one_time >= 0 and limit_daily >= 0", name="account_limits"),
    Index("ix_account_user_id_id", "user_id", "id"),
)

limit_exception = Table(
    "limit_exception",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    _time("granted_at"),
    _time("ends_at"),
    CheckConstraint("kind in ('one_time', 'daily') and amount >= 0", name="limit_exception_kind"),
    Index("ix_limit_exception_account_id_ends_at", "account_id", "ends_at"),
)

transfer = Table(
    "transfer",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("sender_id", Uuid, nullable=False),
    Column("receiver_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("fee", BigInteger, nullable=False),
    Column("free", Boolean, nullable=False),
    Column("sender_label", Text, nullable=False),
    Column("receiver_label", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    _time("requested_at"),
    _time("ended_at", nullable=True),
    CheckConstraint("status in ('pending', 'completed', 'failed', 'cancelled')", name="transfer_status"),
    CheckConstraint("(status = 'pending') = (ended_at is null)", name="transfer_ended_at"),
    CheckConstraint("(status = 'failed') = (reason is not null)", name="transfer_reason"),
    CheckConstraint("amount > 0 and fee >= 0 and sender_id <> receiver_id", name="transfer_amount"),
    Index("ix_transfer_pending", "sender_id", postgresql_where=text("status = 'pending'")),
    Index("ix_transfer_user_id_id", "user_id", "id"),
    Index("ix_transfer_sender_id_id", "sender_id", "id"),
    Index("ix_transfer_receiver_id_id", "receiver_id", "id"),
)

usage_day = Table(
    "usage_day",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    # Of transfers of that day that are pending or completed.
    Column("sent", BigInteger, nullable=False),
    Column("free_transfers", Integer, nullable=False),
    CheckConstraint("sent >= 0 and free_transfers >= 0", name="usage_day_sent"),
    Index("ix_usage_day_user_id_day", "user_id", "day"),
)

adjustment = Table(
    "adjustment",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

posting = Table(
    "posting",
    metadata,
    Column("sequence", BigInteger, Identity(), primary_key=True),
    # The transfer, adjustment, distribution or receipt whose it is, or the giving back.
    Column("movement_id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("posted_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("movement_id", "account_id"),
    CheckConstraint("amount <> 0", name="posting_amount"),
    Index("ix_posting_account_id_sequence", "account_id", "sequence"),
)

distribution = Table(
    "distribution",
    metadata,
    # Also that of its account.
    Column("id", Uuid, primary_key=True),
    Column("token", Text, nullable=False),
    Column("room_id", Text, nullable=False),
    Column("giver_id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("people", Integer, nullable=False),
    Column("split", Text, nullable=False),
    Column("day", Date, nullable=False),
    _time("opened_at"),
    _time("closes_at"),
    _time("closed_at", nullable=True),
    Column("given_back", BigInteger, nullable=False, server_default="0"),
    # The movement by which that came back.
    Column("given_back_id", Uuid, unique=True),
    CheckConstraint("split in ('random', 'even')", name="distribution_split"),
    CheckConstraint(
        "people > 0 and amount >= people and given_back between 0 and amount", name="distribution_amount"
    ),
    CheckConstraint("closed_at is not null or given_back = 0", name="distribution_closed"),
    CheckConstraint("(given_back > 0) = (given_back_id is not null)", name="distribution_given_back"),
    Index("ix_distribution_room_id_token", "room_id", "token"),
    Index("uq_distribution_open", "room_id", "token", unique=True, postgresql_where=text("closed_at is null")),
    Index("ix_distribution_open_closes_at", "closes_at", postgresql_where=text("closed_at is null")),
)

distribution_share = Table(
    "distribution_share",
    metadata,
    Column("distribution_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    # Null while nobody has it.
    Column("receiver_id", Uuid),
    Column("receipt_id", Uuid, unique=True),
    _time("taken_at", nullable=True),
    CheckConstraint("amount > 0", name="distribution_share_amount"),
    CheckConstraint(
        "(receiver_id is null) = (taken_at is null) and (receiver_id is null) = (receipt_id is null)",
        name="distribution_share_taken",
    ),
    Index(
        "uq_distribution_share_receiver_id",
        "distribution_id",
        "receiver_id",
        unique=True,
        postgresql_where=text("receiver_id is not null"),
    ),
    Index("ix_distribution_share_free", "distribution_id", "number", postgresql_where=text("receiver_id is null")),
)

receipt = Table(
    "receipt",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("room_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("distribution_id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("key", Text),
    _time("asked_at"),
    _time("begin_by"),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    # Not 0 where it is received.
    Column("amount", BigInteger, nullable=False),
    _time("ended_at", nullable=True),
    CheckConstraint("status in ('asked', 'received', 'refused', 'not_begun')", name="receipt_status"),
    CheckConstraint("(status = 'asked') = (ended_at is null)", name="receipt_ended_at"),
    CheckConstraint("(status = 'refused') = (reason is not null)", name="receipt_reason"),
    CheckConstraint("amount >= 0 and (status = 'received') = (amount > 0)", name="receipt_amount"),
    Index(
        "uq_receipt_user_id_key",
        "user_id",
        "key",
        unique=True,
        postgresql_where=text("key is not null and status in ('asked', 'received')"),
    ),
    Index("ix_receipt_of_nothing", "asked_at", postgresql_where=text("status <> 'received'")),
)

sign_in = Table(
    "sign_in",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    # Null for an administrator.
    Column("user_id", Uuid, unique=True),
    Column("password_hash", Text, nullable=False),
    # Attempts since the last right password; before `not_before` there is none.
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("not_before", DateTime(timezone=True)),
    CheckConstraint("role in ('member', 'administrator')", name="sign_in_role"),
    CheckConstraint("(role = 'member') = (user_id is not null)", name="sign_in_user"),
)

session = Table(
    "session",
    metadata,
    Column("token_sha256", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("expires_at", DateTime(timezone=True), nullable=False, index=True),
)

act = Table(
    "act",
    metadata,
    Column("sequence", BigInteger, Identity(), primary_key=True),
    Column("administrator", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # The account, user or account type that it was done to.
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("done_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index("ix_act_subject_sequence", "subject", "sequence"),
)
