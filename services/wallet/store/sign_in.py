"""Who signs in, and sessions: what is counted and looked up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import LargeBinary, bindparam, delete, insert, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.wallet.domain.sign_in import Role, Who
from services.wallet.store.tables import session, sign_in

INSERT_SIGN_IN_IF_NEW = postgresql.insert(sign_in).on_conflict_do_nothing()
INSERT_SESSION = insert(session)

# Counted before the password is looked at: whoever tries many at once has them all counted. After the fifth wrong
# one a second passes before the next, after each further one twice as long, up to five minutes.
_ATTEMPT = text(
    """
    update sign_in
       set attempts = least(attempts, 1000) + 1,
           not_before = case when attempts < 4 then null
             else clock_timestamp() + make_interval(secs => least(2.0 ^ least(attempts, 30) / 16, 300)) end
     where name = :name and (not_before is null or not_before <= clock_timestamp())
    returning password_hash, role, user_id
    """
)
_EXISTS = text("select 1 from sign_in where name = :name")
_SUCCEED = text("update sign_in set attempts = 0, not_before = null where name = :name")
_SET_PASSWORD = text(
    "update sign_in set password_hash = :password_hash, attempts = 0, not_before = null where name = :name"
)
_WHO = text(
    """
    select s.token_sha256, w.name, w.role, w.user_id
      from session s join sign_in w on w.name = s.name left join member m on m.user_id = w.user_id
     where s.token_sha256 = any(:tokens) and s.expires_at > clock_timestamp()
       and coalesce(m.active, w.user_id is null)
    """
).bindparams(bindparam("tokens", type_=postgresql.ARRAY(LargeBinary)))
_PRUNE = text(
    """
    delete from session where token_sha256 = any (array(
      select token_sha256 from session where expires_at <= clock_timestamp() limit 100))
    """
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What somebody's password is to be checked against."""

    password_hash: str
    who: Who


async def begin_attempt(connection: AsyncConnection, name: str) -> Attempt | None:
    """Count an attempt; None where nobody has this name, or has to wait."""
    row = (await connection.execute(_ATTEMPT, {"name": name})).mappings().first()
    if row is None:
        return None
    return Attempt(row["password_hash"], Who(name=name, role=Role(row["role"]), user_id=row["user_id"]))


async def is_known(connection: AsyncConnection, name: str) -> bool:
    return (await connection.execute(_EXISTS, {"name": name})).first() is not None


async def end_attempts(connection: AsyncConnection, name: str) -> None:
    """The password was right: no attempt counts any more. Some sessions that are over are forgotten."""
    await connection.execute(_SUCCEED, {"name": name})
    await connection.execute(_PRUNE)


async def set_password(connection: AsyncConnection, name: str, password_hash: str) -> None:
    """Another password; all sessions of this name end."""
    await connection.execute(_SET_PASSWORD, {"name": name, "password_hash": password_hash})
    await connection.execute(delete(session).where(session.c.name == name))


async def find_who(connection: AsyncConnection, tokens_sha256: Iterable[bytes]) -> dict[bytes, Who]:
    """Whose sessions these are, of those that last and whose users are active."""
    result = await connection.execute(_WHO, {"tokens": list(tokens_sha256)})
    return {
        row["token_sha256"]: Who(name=row["name"], role=Role(row["role"]), user_id=row["user_id"])
        for row in result.mappings()
    }


async def end_session(connection: AsyncConnection, token_sha256: bytes) -> None:
    await connection.execute(delete(session).where(session.c.token_sha256 == token_sha256))
