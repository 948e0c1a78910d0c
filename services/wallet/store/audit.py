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
         where a.kind in ('member', 'distribution') group by a.id having a.balance <> coalesce(sum(p.amount), 0)
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
           and not exists (select from distribution d where p.movement_id in (d.id, d.given_back_id)
                                                        and p.account_id in (d.id, d.account_id))
           and not exists (select from receipt r where r.id = p.movement_id and r.status = 'received'
                                                   and p.account_id in (r.distribution_id, r.account_id))
    """,
    "what a day has used is what was sent": """
        select format('%s on %s: used %s, sent %s', coalesce(u.account_id, t.account_id), coalesce(u.day, t.day),
                      u.sent, t.sent)
          from usage_day u
          full join (select account_id, day, sum(amount)::bigint as sent,
                             count(*) filter (where free)::integer as free
                       from (select sender_id as account_id, day, amount, free from transfer
                              where status in ('pending', 'completed')
                             union all
                             select account_id, day, amount - given_back, false from distribution) s
                      group by account_id, day) t
            on t.account_id = u.account_id and t.day = u.day
         where (coalesce(u.sent, 0), coalesce(u.free_transfers, 0)) is distinct from
               (coalesce(t.sent, 0), coalesce(t.free, 0))
    """,
    "a distribution's account holds its untaken shares, and nothing once it is closed": """
        select format('%s: balance %s, untaken %s, closed %s', d.id, a.balance, s.untaken, d.closed_at)
          from distribution d
          left join account a on a.id = d.id and a.kind = 'distribution' and a.currency = d.currency
          left join (select distribution_id, coalesce(sum(amount) filter (where receiver_id is null), 0) as untaken
                       from distribution_share group by distribution_id) s on s.distribution_id = d.id
         where a.balance is distinct from case when d.closed_at is null then s.untaken else 0 end
    """,
    "a distribution is its shares: those taken, and those left or given back": """
        select format('%s: %s for %s, %s shares of %s, %s taken, %s given back', d.id, d.amount, d.people,
                      s.people, s.amount, s.taken, d.given_back)
          from distribution d
          left join (select distribution_id, count(*) as people, sum(amount) as amount,
                            coalesce(sum(amount) filter (where receiver_id is not null), 0) as taken
                       from distribution_share group by distribution_id) s on s.distribution_id = d.id
         where (s.people, s.amount) is distinct from (d.people::bigint, d.amount::numeric)
            or d.closed_at is not null and d.given_back <> d.amount - s.taken
    """,
    "opening, taking and giving back are each their own postings": """
        select format('%s: %s from %s to %s', told.id, told.amount, told.giver, told.taker)
          from (select id, account_id as giver, id as taker, amount from distribution
                union all
                select given_back_id, id, account_id, given_back from distribution where given_back > 0
                union all
                select id, distribution_id, account_id, amount from receipt where status = 'received') told
          left join posting g on g.movement_id = told.id and g.account_id = told.giver
          left join posting t on t.movement_id = told.id and t.account_id = told.taker
         where (g.amount, t.amount) is distinct from (-told.amount, told.amount)
    """,
    "a share that is taken is one receipt's, and a received receipt has its share": """
        select format('receipt %s: %s %s, share %s of %s', coalesce(r.id, s.receipt_id), r.status, r.amount,
                      s.number, s.amount)
          from receipt r full join distribution_share s on s.receipt_id = r.id
         where (r.status = 'received' or s.receiver_id is not null)
           and (r.status, r.distribution_id, r.user_id, r.amount) is distinct from
               ('received', s.distribution_id, s.receiver_id, s.amount)
    """,
    "a distribution that is over for a minute is closed": """
        select format('%s: over since %s', id, closes_at)
          from distribution where closed_at is null and closes_at < now() - interval '1 minute'
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
