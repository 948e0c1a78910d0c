"""Writes and reads what the check of verdicts stands on, in the databases of the order and the fraud service."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from faults.beside import plain_uuid
from faults.verdicts.checker import Evaluated, Found, JobFound

Query = Callable[..., Awaitable[Sequence[Any]]]
"""Rows of asyncpg's for a statement and its parameters."""

CREATE_EFFECTS = """
create table if not exists verdict_effect (
  position bigint generated always as identity, order_id uuid not null, verdict text not null);
create or replace function record_verdict_effect() returns trigger language plpgsql as $$
begin
  insert into verdict_effect (order_id, verdict) values (new.order_id, new.verdict);
  return null;
end $$;
create or replace trigger verdict_effect after insert or update on order_verdict
  for each row execute function record_verdict_effect()
"""
"""In the order service's database: whatever is recorded there of a verdict leaves a row, a second time too.
Its own table keeps one row for each order, and would show nothing of that."""

PUT_ASIDE = """
with day as (select date_trunc('day', now() at time zone 'Asia/Seoul') - interval '1 day' as begins)
insert into known_order (order_id, user_id, currency, amount, placed_at)
select told.order_id, ($2::uuid[])[1 + number % cardinality($2::uuid[])], 'EUR', 1000 + number,
       (begins + number * interval '1 day' / cardinality($1::uuid[])) at time zone 'Asia/Seoul'
  from day, unnest($1::uuid[]) with ordinality as counted (order_id, place)
       cross join lateral (select counted.order_id, (place - 1)::integer as number) told
"""
"""In the fraud service's: orders of yesterday, of these users in turn, without a verdict, as its consumer keeps
those whose event has become a dead letter."""

_ORDERS = "select id from orders"
_EFFECTS = "select order_id, verdict from verdict_effect order by position"
_EVALUATIONS = "select order_id, verdict, evaluated_by from evaluation"
_JOBS = "select id, kind, state from job where submitted_at <= $1"


async def orders_of(order_query: Query) -> set[UUID]:
    """All orders that are placed."""
    return {plain_uuid(id_) for (id_,) in await order_query(_ORDERS)}


async def read(order_query: Query, fraud_query: Query, moment: Any) -> Found:
    """All verdicts, and the jobs that were submitted until `moment`."""
    # The effects first: what is told is committed before, and so is there when one looks later.
    effects: dict[UUID, list[str]] = defaultdict(list)
    for order_id, verdict in await order_query(_EFFECTS):
        effects[plain_uuid(order_id)].append(verdict)
    evaluations = {
        plain_uuid(order_id): Evaluated(verdict, by) for order_id, verdict, by in await fraud_query(_EVALUATIONS)
    }
    jobs = [JobFound(plain_uuid(id_), kind, state) for id_, kind, state in await fraud_query(_JOBS, moment)]
    return Found(evaluations, effects, jobs)
