"""Distributions, their shares and accounts, and the receipts of those who asked for a share."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _require_accounts("('member', 'world', 'fees', 'distribution')", "kind in ('member', 'distribution')")
    _create_distributions()
    _create_receipts()


def downgrade() -> None:
    """Only where there has been no distribution: their postings are for good."""
    for table in ("receipt", "distribution_share", "distribution"):
        op.drop_table(table)
    _require_accounts("('member', 'world', 'fees')", "kind = 'member'")


def _require_accounts(kinds: str, with_balance: str) -> None:
    for name, rule in (
        ("account_kind", f"kind in {kinds}"),
        ("account_of_the_house", f"{with_balance} or balance = 0"),
    ):
        op.drop_constraint(name, "account")
        op.create_check_constraint(name, "account", rule)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _create_distributions() -> None:
    op.create_table(
        "distribution",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("room_id", sa.Text, nullable=False),
        sa.Column("giver_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("people", sa.Integer, nullable=False),
        sa.Column("split", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        _time("opened_at"),
        _time("closes_at"),
        _time("closed_at", nullable=True),
        sa.Column("given_back", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("given_back_id", sa.Uuid, unique=True),
        sa.CheckConstraint("split in ('random', 'even')", name="distribution_split"),
        sa.CheckConstraint(
            "people > 0 and amount >= people and given_back between 0 and amount", name="distribution_amount"
        ),
        sa.CheckConstraint("closed_at is not null or given_back = 0", name="distribution_closed"),
        sa.CheckConstraint("(given_back > 0) = (given_back_id is not null)", name="distribution_given_back"),
    )
    op.create_index("ix_distribution_room_id_token", "distribution", ["room_id", "token"])
    op.create_index(
        "uq_distribution_open",
        "distribution",
        ["room_id", "token"],
        unique=True,
        postgresql_where=sa.text("closed_at is null"),
    )
    op.create_index(
        "ix_distribution_open_closes_at",
        "distribution",
        ["closes_at"],
        postgresql_where=sa.text("closed_at is null"),
    )
    op.create_table(
        "distribution_share",
        sa.Column("distribution_id", sa.Uuid, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("receiver_id", sa.Uuid),
        sa.Column("receipt_id", sa.Uuid, unique=True),
        _time("taken_at", nullable=True),
        sa.CheckConstraint("amount > 0", name="distribution_share_amount"),
        sa.CheckConstraint(
            "(receiver_id is null) = (taken_at is null) and (receiver_id is null) = (receipt_id is null)",
            name="distribution_share_taken",
        ),
    )
    op.create_index(
        "uq_distribution_share_receiver_id",
        "distribution_share",
        ["distribution_id", "receiver_id"],
        unique=True,
        postgresql_where=sa.text("receiver_id is not null"),
    )
    op.create_index(
        "ix_distribution_share_free",
        "distribution_share",
        ["distribution_id", "number"],
        postgresql_where=sa.text("receiver_id is null"),
    )


def _create_receipts() -> None:
    op.create_table(
        "receipt",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("room_id", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("distribution_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        _time("asked_at"),
        _time("begin_by"),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("amount", sa.BigInteger, nullable=False),
        _time("ended_at", nullable=True),
        sa.CheckConstraint("status in ('asked', 'received', 'refused', 'not_begun')", name="receipt_status"),
        sa.CheckConstraint("(status = 'asked') = (ended_at is null)", name="receipt_ended_at"),
        sa.CheckConstraint("(status = 'refused') = (reason is not null)", name="receipt_reason"),
        sa.CheckConstraint("amount >= 0 and (status = 'received') = (amount > 0)", name="receipt_amount"),
    )
    op.create_index(
        "uq_receipt_user_id_key",
        "receipt",
        ["user_id", "key"],
        unique=True,
        postgresql_where=sa.text("key is not null and status in ('asked', 'received')"),
    )
    op.create_index(
        "ix_receipt_of_nothing", "receipt", ["asked_at"], postgresql_where=sa.text("status <> 'received'")
    )
