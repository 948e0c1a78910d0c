"""Which causes were alerted, and when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.dead_letter.store.tables import alert


async def raise_alerts(
    connection: AsyncConnection, fingerprints: Sequence[str], now: datetime, quiet_since: datetime
) -> set[str]:
    """Note that these are alerted now; return those that had been quiet since `quiet_since`."""
    if not fingerprints:
        return set()
    rows = [{"fingerprint": fingerprint, "raised_at": now} for fingerprint in sorted(set(fingerprints))]
    new = insert(alert).values(rows)
    statement = new.on_conflict_do_update(
        index_elements=[alert.c.fingerprint],
        set_={"raised_at": new.excluded.raised_at},
        where=alert.c.raised_at < quiet_since,
    ).returning(alert.c.fingerprint)
    return set((await connection.execute(statement)).scalars())
