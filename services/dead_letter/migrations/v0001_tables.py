"""Dead letters, the redrives that people asked for, alerts, and the answers kept for idempotency keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from shared.migrations.messaging_tables import create_idempotency_key_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dead_letter",
        sa.Column("sequence", sa.BigInteger, sa.Identity(), nullable=False, unique=True),
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("subscriber", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("event_id", sa.Text),
        sa.Column("type", sa.Text),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("error_type", sa.Text, nullable=False),
        sa.Column("error_message", sa.Text, nullable=False),
        sa.Column("error_stack", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("delays", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("redrives", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("redrive_id", sa.Uuid),
        sa.Column("asked", sa.Boolean, nullable=False),
        sa.CheckConstraint(
            "state in ('pending', 'redriven', 'resolved', 'parked', 'discarded')", name="dead_letter_state"
        ),
        sa.CheckConstraint("kind in ('failed', 'delayed')", name="dead_letter_kind"),
    )
    op.create_index(
        "ix_dead_letter_due_at",
        "dead_letter",
        ["due_at"],
        postgresql_where=sa.text("state in ('pending', 'redriven')"),
    )
    op.create_index("ix_dead_letter_fingerprint_sequence", "dead_letter", ["fingerprint", "sequence"])
    op.create_index("ix_dead_letter_state_kind", "dead_letter", ["state", "kind"])
    op.create_index("ix_dead_letter_redrive_id", "dead_letter", ["redrive_id", "asked"])
    op.create_table(
        "redrive",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("rate_per_s", sa.Float, nullable=False),
        sa.Column("requested", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_redrive_next_at", "redrive", ["next_at"])
    op.create_table(
        "alert",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
    )
    create_idempotency_key_1()


def downgrade() -> None:
    for table in ("dead_letter", "redrive", "alert", "idempotency_key"):
        op.drop_table(table)
