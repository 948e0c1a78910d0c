"""The tables of dead letters, of redrives that people asked for, and of alerts."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.dead_letter.domain import State

metadata = MetaData()

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("sequence", BigInteger, Identity(), nullable=False, unique=True),
    Column("id", Uuid, primary_key=True),
    Column("subscriber", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    # `sent_to_json`; null where an earlier version kept the letter. No jsonb, which has no NUL and other numbers.
    Column("sent", JSON(none_as_null=True)),
    Column("key", Text),
    Column("source", Text),
    Column("event_id", Text),
    Column("type", Text),
    Column("whole", Boolean, nullable=False),
    Column("kind", Text, nullable=False),
    Column("error_type", Text, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("error_stack", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("delays", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("redrives", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", DateTime(timezone=True)),
    Column("first_seen_at", DateTime(timezone=True), nullable=False),
    Column("last_seen_at", DateTime(timezone=True), nullable=False),
    Column("reason", Text),
    # Of a redrive that somebody asked for: which, and whether it has not come to this letter yet.
    Column("redrive_id", Uuid),
    Column("asked", Boolean, nullable=False),
    CheckConstraint(
        "state in ('pending', 'redriven', 'resolved', 'parked', 'discarded')", name="dead_letter_state"
    ),
    CheckConstraint("kind in ('failed', 'delayed')", name="dead_letter_kind"),
)
WITHOUT_MESSAGE = [column for column in dead_letter.c if column.name not in ("body", "headers", "sent")]
Index(
    "ix_dead_letter_due_at",
    dead_letter.c.due_at,
    postgresql_where=dead_letter.c.state.in_([State.PENDING.value, State.REDRIVEN.value]),
)
Index("ix_dead_letter_fingerprint_sequence", dead_letter.c.fingerprint, dead_letter.c.sequence)
Index("ix_dead_letter_state_kind", dead_letter.c.state, dead_letter.c.kind)
Index("ix_dead_letter_redrive_id", dead_letter.c.redrive_id, dead_letter.c.asked)

redrive = Table(
    "redrive",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("rate_per_s", Float, nullable=False),
    Column("requested", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    # Its next letters are due; null when it has come to all of them.
    Column("next_at", DateTime(timezone=True), index=True),
)

alert = Table(
    "alert",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("raised_at", DateTime(timezone=True), nullable=False),
)
