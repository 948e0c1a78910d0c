"""Transactional Outbox: events wait here, in the transaction that changed the state, until the relay sent them.

Rows hold the final wire bytes, so that what is published is what was committed. Confirmed rows are deleted:
the table's length is the backlog. The relay is woken by `NOTIFY tandem_outbox` in the same transaction.
"""

from __future__ import annotations

from zlib import crc32

from sqlalchemy import BigInteger, Column, Identity, LargeBinary, MetaData, SmallInteger, Table, Text, insert

from shared.envelope import Envelope

NOTIFY_CHANNEL = "tandem_outbox"
VIRTUAL_SHARDS = 16
"""Keys are spread over this many shards for good; a relay serves a whole number of them. A constant, because
changing it while rows wait would break the order per key."""

metadata = MetaData()

outbox = Table(
    "outbox",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("shard", SmallInteger, nullable=False),
    Column("channel", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("traceparent", Text),
    Column("body", LargeBinary, nullable=False),
)

insert_outbox = insert(outbox)


def shard_of(key: str) -> int:
    """0 to 15, the same for equal keys in every process and version."""
    return crc32(key.encode()) % VIRTUAL_SHARDS


def outbox_row(channel: str, event: Envelope) -> dict[str, object]:
    """The row for `insert_outbox`. Raises `EventTooLargeError`."""
    return {
        "shard": shard_of(event.key),
        "channel": channel,
        "type": event.type,
        "key": event.key,
        "event_id": event.id,
        "traceparent": event.traceparent,
        "body": event.encode(),
    }
