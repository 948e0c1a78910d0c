"""The ledger, accounts, transfers, outbox, inbox, and the answers kept for idempotency keys."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.messaging_tables import create_idempotency_key_1, create_inbox_1, create_outbox_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_OF_LEDGER = (
    "member",
    "account_type",
    "account",
    "limit_exception",
    "transfer",
    "usage_day",
    "adjustment",
    "posting",
)


def upgrade() -> None:
    _create_members()
    _create_accounts()
    _create_transfers()
    _create_postings()
    create_outbox_1()
    create_inbox_1()
    create_idempotency_key_1()


def downgrade() -> None:
    for table in (*_OF_LEDGER, "outbox", "inbox", "idempotency_key"):
        op.drop_table(table)
    op.execute("drop function posting_is_for_good")


def _amount(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, server_default=default)


def _time(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[object]:
    default = sa.func.clock_timestamp() if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _create_members() -> None:
    op.create_table(
        "member",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _amount("limit_total", nullable=True),
        sa.Column("free_transfers", sa.Integer, nullable=False, server_default="0"),
        sa.CheckConstraint("limit_total >= 0 and free_transfers >= 0", name="member_limits"),
    )
    op.create_table(
        "usage_day",
        sa.Column("account_id", sa.Uuid, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        _amount("sent"),
        sa.Column("free_transfers", sa.Integer, nullable=False),
        sa.CheckConstraint("sent >= 0 and free_transfers >= 0", name="usage_day_sent"),
    )
    op.create_index("ix_usage_day_user_id_day", "usage_day", ["user_id", "day"])


def _create_accounts() -> None:
    op.create_table(
        "account_type",
        sa.Column("name", sa.Text, primary_key=True),
        _amount("limit_one_time"),
        _amount("limit_daily"),
        sa.CheckConstraint("limit_one_time >= 0 and limit_daily >= 0", name="account_type_limits"),
    )
    op.create_table(
        "account",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("user_id", sa.Uuid),
        sa.Column("type", sa.Text),
        _amount("limit_one_time", nullable=True),
        _amount("limit_daily", nullable=True),
        _amount("balance", default="0"),
        _amount("held", default="0"),
        sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.text("false")),
        _time("opened_at", now=True),
        sa.CheckConstraint("kind in ('member', 'world', 'fees')", name="account_kind"),
        sa.CheckConstraint("(kind = 'member') = (user_id is not null and type is not null)", name="account_owner"),
        sa.CheckConstraint(
            "held >= 0 and held <= balance and balance <= 9007199254740991", name="account_available"
        ),
        sa.CheckConstraint("kind = 'member' or balance = 0", name="account_of_the_house"),
        sa.CheckConstraint("limit_one_time >= 0 and limit_daily >= 0", name="account_limits"),
    )
    op.create_index("ix_account_user_id_id", "account", ["user_id", "id"])
    # Balances change in place: room on each page, and no index names what changes.
    op.execute("alter table account set (fillfactor = 50)")
    op.create_table(
        "limit_exception",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        _amount("amount"),
        _time("granted_at"),
        _time("ends_at"),
        sa.CheckConstraint("kind in ('one_time', 'daily') and amount >= 0", name="limit_exception_kind"),
    )
    op.create_index("ix_limit_exception_account_id_ends_at", "limit_exception", ["account_id", "ends_at"])


def _create_transfers() -> None:
    op.create_table(
        "transfer",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("sender_id", sa.Uuid, nullable=False),
        sa.Column("receiver_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        _amount("amount"),
        _amount("fee"),
        sa.Column("free", sa.Boolean, nullable=False),
        sa.Column("sender_label", sa.Text, nullable=False),
        sa.Column("receiver_label", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        _time("requested_at"),
        _time("ended_at", nullable=True),
        sa.CheckConstraint("status in ('pending', 'completed', 'failed', 'cancelled')", name="transfer_status"),
        sa.CheckConstraint("(status = 'pending') = (ended_at is null)", name="transfer_ended_at"),
        sa.CheckConstraint("(status = 'failed') = (reason is not null)", name="transfer_reason"),
        sa.CheckConstraint("amount > 0 and fee >= 0 and sender_id <> receiver_id", name="transfer_amount"),
    )
    op.create_index(
        "ix_transfer_pending", "transfer", ["sender_id"], postgresql_where=sa.text("status = 'pending'")
    )


def _create_postings() -> None:
    op.create_table(
        "adjustment",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("account_id", sa.Uuid, nullable=False),
        _amount("amount"),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        _time("made_at", now=True),
    )
    op.create_table(
        "posting",
        sa.Column("sequence", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("movement_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        _amount("amount"),
        _time("posted_at", now=True),
        sa.UniqueConstraint("movement_id", "account_id"),
        sa.CheckConstraint("amount <> 0", name="posting_amount"),
    )
    op.create_index("ix_posting_account_id_sequence", "posting", ["account_id", "sequence"])
    op.execute(
        """
        create function posting_is_for_good() returns trigger language plpgsql as $$
        begin
          raise exception 'postings are never changed or deleted';
        end $$
        """
    )
    op.execute(
        """
        create trigger posting_is_for_good before update or delete or truncate on posting
          for each statement execute function posting_is_for_good()
        """
    )
