"""Fingerprints without the paths of files, so that letters of before and after a function moved are one group.

Unlike other migrations, this one asks the service's rule of today and not a copy of the one that was new then:
whichever rule is in force when it runs, the letters to come are grouped by it.
"""

import sqlalchemy as sa
from alembic import op

from services.dead_letter.domain import fingerprint

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    # All that a fingerprint is made of, and so the new one too, is the same for every letter that has the old one.
    groups = connection.execute(
        sa.text(
            """
            select distinct on (fingerprint)
                   fingerprint, subscriber, channel, error_type, error_message, error_stack
              from dead_letter order by fingerprint, sequence
            """
        )
    )
    renamed = [
        {"old": group.fingerprint, "new": new}
        for group in groups
        if (
            new := fingerprint(
                f"{group.subscriber}.{group.channel}", group.error_type, group.error_message, group.error_stack
            )
        )
        != group.fingerprint
    ]
    if renamed:
        connection.execute(sa.text("update dead_letter set fingerprint = :new where fingerprint = :old"), renamed)
        # Groups may become one: the newest alert counts.
        connection.execute(
            sa.text(
                """
                insert into alert (fingerprint, raised_at)
                select :new, raised_at from alert where fingerprint = :old
                on conflict (fingerprint) do update set raised_at = greatest(alert.raised_at, excluded.raised_at)
                """
            ),
            renamed,
        )
        connection.execute(sa.text("delete from alert where fingerprint = :old"), renamed)


def downgrade() -> None:
    """The code of before makes other fingerprints: what comes then begins groups of its own."""
