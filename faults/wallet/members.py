"""Members of whom only the wallet needs to know, by the thousand, each with an account in which nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid4

from experiment.side import Side
from faults.beside import connected
from faults.wallet.accounts import TYPE

# As they would be by its own use cases, which take a request or two for each: no account has a posting yet.
_MEMBERS = "insert into member (user_id, active, version) select id, true, 1 from unnest($1::uuid[]) as m (id)"
_ACCOUNTS = """
insert into account (id, kind, currency, user_id, type)
select id, 'member', 'KRW', user_id, $3 from unnest($1::uuid[], $2::uuid[]) as a (id, user_id)
"""


async def open_members(side: Side, users: Sequence[UUID]) -> None:
    """Have these be members, each with one account, of the type that the administrator offers."""
    async with connected(side, "wallet") as connection, connection.transaction():
        await connection.execute(_MEMBERS, users)
        await connection.execute(_ACCOUNTS, [uuid4() for _ in users], users, TYPE)
