"""The audit: what can only be true of the ledger if no money was lost, doubled or overdrawn.

Each query finds what breaks one rule, as a text. They are to be read in one snapshot: on a system at work, each
would otherwise see another moment (`begin_snapshot`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

FINDINGS_MAX: Final = 100
"""Of each rule; whoever breaks one more often is told of the first."""

RULES: Final[Mapping[str, str]] = {
    "every movement sums to zero": """
        select format('%s: %s %s', movement_id, sum(amount), currency)
          from posting group by movement_id, currency having sum(amount) <> 0
    """,
    "every balance equals its postings": """
        select format('%s: balance %s, postings %s', a.id, a.balance, coalesce(sum(p.amount), 0))
          from account a left join posting p on p.account_id = a.id
         where a.kind = 'member' group by a.id having a.balance <> coalesce(sum(p.amount), 0)
    """,
    "nothing is negative": """
        select format('%s: balance %s, held %s', id, balance, held)
          from account where balance < 0 or held < 0 or held > balance
    """,
    "what is held is what pending transfers need": """
        select format('%s: held %s, pending %s', a.id, a.held, coalesce(sum(t.amount + t.fee), 0))
          from account a left join transfer t on t.sender_id = a.id and t.status = 'pending'
         group by a.id having a.held <> coalesce(sum(t.amount + t.fee), 0)
    """,
    "a completed transfer has its own postings, and no other has any": """
        select format('%s: %s, sender %s, receiver %s, house %s', t.id, t.status, s.amount, r.amount, h.amount)
          from transfer t
          left join posting s on s.movement_id = t.id and s.account_id = t.sender_id
          left join posting r on r.movement_id = t.id and r.account_id = t.receiver_id
          left join posting h on h.movement_id = t.id and h.account_id not in (t.sender_id, t.receiver_id)
         where (coalesce(s.amount, 0), coalesce(r.amount, 0), coalesce(h.amount, 0)) is distinct from
               case when t.status = 'completed' then (-t.amount - t.fee, t.amount, t.fee)
                    else (0::bigint, 0::bigint, 0::bigint) end
    """,
    "every posting is of a movement, and of an account in its currency": """
        select format('%s of %s: %s %s', p.sequence, p.movement_id, p.amount, p.currency)
          from posting p
         where not exists (select from account a where a.id = p.account_id and a.currency = p.currency)
            or not exists (select from transfer t where t.id = p.movement_id)
           and not exists (select from adjustment j where j.id = p.movement_id and j.account_id = p.account_id
                                                    and j.amount = p.amount)
           and not exists (select from adjustment j join account a on a.id = p.account_id
                            where j.id = p.movement_id and a.kind = 'world')
    """,
    "what a day has used is what was sent": """
        select format('%s on %s: used %s, sent %s', coalesce(u.account_id, t.account_id), coalesce(u.day, t.day),
                      u.sent, t.sent)
          from usage_day u
          full join (select sender_id as account_id, day, sum(amount)::bigint as sent,
                             count(*) filter (where free)::integer as free
                       from transfer where status in ('pending', 'completed') group by sender_id, day) t
            on t.account_id = u.account_id and t.day = u.day
         where (coalesce(u.sent, 0), coalesce(u.free_transfers, 0)) is distinct from
               (coalesce(t.sent, 0), coalesce(t.free, 0))
    """,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that does not hold, and one place where."""

    rule: str
    place: str


def report(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each rule, and below one that is broken a line for each place that was found."""
    for rule in RULES:
        places = [finding.place for finding in findings if finding.rule == rule]
        yield f"{'BROKEN' if places else 'holds '}  {rule}"
        yield from (f"        {place}" for place in places)


async def begin_snapshot(connection: AsyncConnection) -> None:
    """Have the transaction see one moment; said before anything else in it."""
    await connection.execute(text("set transaction isolation level repeatable read, read only"))


async def audit(connection: AsyncConnection) -> list[Finding]:
    """What breaks a rule, at most `FINDINGS_MAX` places of each: none, where all is well."""
    found = []
    for rule, query in RULES.items():
        result = await connection.execute(text(f"{query} limit {FINDINGS_MAX}"))
        found += [Finding(rule, place) for place in result.scalars()]
    return found
