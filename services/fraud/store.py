"""The tables of orders, users and evaluations, and their statements. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal, Self
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    RowMapping,
    Table,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.fraud.domain import Evaluation, Facts, Policy, Verdict

KEPT_S: Final = 60 * 86_400.0
"""Seconds that an order which was evaluated is kept beside its evaluation, for the rules that count orders."""
By = Literal["event", "batch"]
"""Whether an order was evaluated as it was placed, or by the batch of the night after."""

metadata = MetaData()

# Of an order whose first event that came was not its placing, `placed_at` is that event's time.
known_order = Table(
    "known_order",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("client_ip", Text),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    Index("ix_known_order_user_id_placed_at", "user_id", "placed_at"),
    Index("ix_known_order_placed_at_order_id", "placed_at", "order_id"),
)

known_user = Table(
    "known_user",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("email", Text),
    Column("registered_at", DateTime(timezone=True)),
    Column("version", Integer, nullable=False),
)

evaluation = Table(
    "evaluation",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("sequence", BigInteger, Identity(), nullable=False, unique=True),
    Column("user_id", Uuid, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("score", Integer, nullable=False),
    Column("reasons", postgresql.JSONB, nullable=False),
    Column("evaluated_by", Text, nullable=False),
    Column("evaluated_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("verdict in ('approve', 'review', 'reject')", name="evaluation_verdict"),
    CheckConstraint("evaluated_by in ('event', 'batch')", name="evaluation_evaluated_by"),
    Index("ix_evaluation_verdict_sequence", "verdict", "sequence"),
)

# Values are in lower case: an e-mail address, a domain behind an `@`, or a network, which stands in `network` too.
threat = Table(
    "threat",
    metadata,
    Column("value", Text, primary_key=True),
    Column("network", postgresql.INET),
    Index("ix_threat_network", "network", postgresql_using="gist", postgresql_ops={"network": "inet_ops"}),
)

# The one list that is in force: where it is from, and what its server calls this version of it.
threat_list = Table(
    "threat_list",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("url", Text, nullable=False),
    Column("etag", Text),
    Column("last_modified", Text),
    Column("entries", Integer, nullable=False),
    Column("fetched_at", DateTime(timezone=True), nullable=False),
    Column("checked_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("number = 1", name="threat_list_number"),
)

# -- what is told

INSERT_ORDER = insert(known_order)
COMPLETE_ORDER = (
    update(known_order)
    .where(known_order.c.order_id == bindparam("of_order"))
    .values(client_ip=bindparam("from_ip"), placed_at=bindparam("at"))
)
_order = postgresql.insert(known_order)
KEEP_ORDER = _order.on_conflict_do_nothing()
"""For an order of whose events one has become a dead letter."""
# Plain, so that a second evaluation of an order fails with all that was told beside it, its event above all.
INSERT_EVALUATION = insert(evaluation)

_user = postgresql.insert(known_user)
_is_newer = _user.excluded.version > known_user.c.version
# Events may come twice and in any order: the newest says the address, the registration when it was.
RECORD_USER = _user.on_conflict_do_update(
    index_elements=[known_user.c.user_id],
    set_={
        "email": case(
            (_is_newer, func.coalesce(_user.excluded.email, known_user.c.email)), else_=known_user.c.email
        ),
        "registered_at": func.coalesce(known_user.c.registered_at, _user.excluded.registered_at),
        "version": func.greatest(known_user.c.version, _user.excluded.version),
    },
)


@dataclass(frozen=True, slots=True)
class Subject:
    """An order to be judged, and what is known of it."""

    order_id: UUID
    user_id: UUID
    facts: Facts

    @classmethod
    def of(cls, row: RowMapping) -> Self:
        facts = {name: row[name] for name in Facts.__dataclass_fields__}
        return cls(row["order_id"], row["user_id"], Facts(**facts))


def evaluated(subject: Subject, found: Evaluation, by: By, now: datetime) -> dict[str, Any]:
    """The row for `INSERT_EVALUATION`."""
    return {
        "order_id": subject.order_id,
        "user_id": subject.user_id,
        "verdict": found.verdict,
        "score": found.score,
        "reasons": [asdict(reason) for reason in found.reasons],
        "evaluated_by": by,
        "evaluated_at": now,
    }


# -- what is read

# No more orders of a user are counted than make the rule apply.
_FACTS: Final = """
    select o.order_id, o.user_id, o.currency, o.amount, o.placed_at, u.registered_at,
      (select count(*) from (
         select from known_order k
          where k.user_id = o.user_id and k.order_id <> o.order_id
            and k.placed_at <= o.placed_at and k.placed_at > o.placed_at - make_interval(secs => :window_s)
          limit :orders_max) counted) as earlier_orders,
      coalesce(o.client_ip is not null and exists (
         select from threat t where t.network >>= cast(o.client_ip as inet)), false) as listed_ip,
      coalesce(exists (
         select from threat t
          where t.value in (lower(u.email), '@' || split_part(lower(u.email), '@', 2))), false) as listed_address
"""
_FACTS_OF_TOLD = text(
    _FACTS
    + """
    from unnest(cast(:order_id as uuid[]), cast(:user_id as uuid[]), cast(:currency as text[]),
                cast(:amount as bigint[]), cast(:client_ip as text[]), cast(:placed_at as timestamptz[]))
           as o (order_id, user_id, currency, amount, client_ip, placed_at)
    left join known_user u on u.user_id = o.user_id
    """
)
_FACTS_OF_KNOWN = text(
    _FACTS
    + """
    from known_order o left join known_user u on u.user_id = o.user_id
    where o.placed_at < :before
      and (o.placed_at, o.order_id) > (cast(:after_at as timestamptz), cast(:after_id as uuid))
      and not exists (select from evaluation e where e.order_id = o.order_id)
    order by o.placed_at, o.order_id limit :count_max
    """
)
# Events of one user's orders are handled one after the other, or two orders at once would not count each other.
_LOCK_USERS = text(
    """
    select pg_advisory_xact_lock(hashed) from (
      select distinct hashtextextended('fraud ' || id, 0) as hashed from unnest(cast(:ids as text[])) as told (id)
      order by hashed) sorted
    """
)
_STANDING = text(
    """
    select id, exists (select from known_order k where k.order_id = id) as is_known,
      exists (select from evaluation e where e.order_id = id) as is_evaluated
    from unnest(cast(:ids as uuid[])) as told (id)
    """
)
_PRUNE = text(
    """
    delete from known_order where order_id = any (array(
      select k.order_id from known_order k join evaluation e using (order_id)
       where k.placed_at < now() - make_interval(secs => :older_than_s)
       order by k.placed_at limit :count_max))
    """
)


async def standing_of(connection: AsyncConnection, order_ids: Sequence[UUID]) -> tuple[set[UUID], set[UUID]]:
    """Which of these orders are known here, and which are evaluated."""
    rows = (await connection.execute(_STANDING, {"ids": list(order_ids)})).all()
    return {row.id for row in rows if row.is_known}, {row.id for row in rows if row.is_evaluated}


async def lock_users(connection: AsyncConnection, user_ids: Sequence[UUID]) -> None:
    """Let nobody else handle events of these users' orders until this transaction ends."""
    await connection.execute(_LOCK_USERS, {"ids": [str(user_id) for user_id in user_ids]})


async def facts_of(
    connection: AsyncConnection, orders: Sequence[dict[str, Any]], policy: Policy
) -> dict[UUID, Subject]:
    """What is known of orders, rows as `INSERT_ORDER` takes them, by their ids."""
    told = {name: [row[name] for row in orders] for name in orders[0]}
    rows = (await connection.execute(_FACTS_OF_TOLD, {**told, **_limits(policy)})).mappings()
    return {row["order_id"]: Subject.of(row) for row in rows}


async def without_verdict(
    connection: AsyncConnection,
    after: tuple[datetime, UUID],
    before: datetime,
    count_max: int,
    policy: Policy,
) -> list[Subject]:
    """Orders placed until `before` that nobody has judged, in order, behind the moment and the id of `after`."""
    told = {"before": before, "after_at": after[0], "after_id": after[1]}
    rows = await connection.execute(_FACTS_OF_KNOWN, {**told, "count_max": count_max, **_limits(policy)})
    return [Subject.of(row) for row in rows.mappings()]


def _limits(policy: Policy) -> dict[str, Any]:
    return {"window_s": policy.velocity_window_s, "orders_max": policy.velocity_orders}


async def prune(connection: AsyncConnection, older_than_s: float, count_max: int) -> int:
    """Delete orders that were evaluated and are so old; return how many went."""
    return (await connection.execute(_PRUNE, {"older_than_s": older_than_s, "count_max": count_max})).rowcount


# -- evaluations


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An order's evaluation, as it is stored."""

    order_id: UUID
    sequence: int
    user_id: UUID
    verdict: Verdict
    score: int
    reasons: list[dict[str, Any]]
    evaluated_by: By
    evaluated_at: datetime


async def find_evaluation(connection: AsyncConnection, order_id: UUID) -> Evaluated | None:
    row = (
        (await connection.execute(select(evaluation).where(evaluation.c.order_id == order_id))).mappings().first()
    )
    return None if row is None else Evaluated(**row)


async def list_evaluations(
    connection: AsyncConnection, verdict: Verdict | None, before: int | None, count_max: int
) -> list[Evaluated]:
    """Evaluations, of one verdict where it is said, newest first, those before the sequence number `before`."""
    query = select(evaluation).order_by(evaluation.c.sequence.desc()).limit(count_max)
    if verdict is not None:
        query = query.where(evaluation.c.verdict == verdict)
    if before is not None:
        query = query.where(evaluation.c.sequence < before)
    return [Evaluated(**row) for row in (await connection.execute(query)).mappings()]


# -- the threat-intelligence list

DROP_THREATS = text("delete from threat where not (value = any (cast(:values as text[])))")
ADD_THREATS = text(
    """
    insert into threat (value, network)
    select value, case when value not like '%@%' then cast(value as inet) end
      from unnest(cast(:values as text[])) as told (value)
    on conflict do nothing
    """
)
_list = postgresql.insert(threat_list)
RECORD_LIST = _list.on_conflict_do_update(
    index_elements=[threat_list.c.number],
    set_={column.name: _list.excluded[column.name] for column in threat_list.c if column.name != "number"},
)
CHECKED_LIST = update(threat_list).values(checked_at=bindparam("at"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreatList:
    """The list that is in force: fetched when, and when its server last said that it is current."""

    url: str
    etag: str | None
    last_modified: str | None
    entries: int
    fetched_at: datetime
    checked_at: datetime


async def find_list(connection: AsyncConnection) -> ThreatList | None:
    """The list that is in force, once one was fetched."""
    query = select(*(threat_list.c[name] for name in ThreatList.__dataclass_fields__))
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else ThreatList(**row)
