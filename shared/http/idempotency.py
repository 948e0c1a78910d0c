"""Idempotency-Key: the same key and request get the same answer, however often they are sent.

The answer is stored in the transaction that did the work, so that there is an answer exactly when there is
an effect. A request with a key that another one is using waits for it and gets its answer. The key belongs to
one request of this service: method, path and JSON body; the same key with another request is a 409.
Only answers that changed something are stored: a refusal (4xx) rolls back, key included, and a later
request with that key is judged anew. Modelled on draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    DateTime,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import PermanentError
from shared.http.problems import ProblemKind
from shared.publishing import UnitOfWork, UnitsOfWork

KEY_LENGTH_MAX = 255
KEY_PATTERN = r"^[\x21-\x7e]+$"
"""Visible ASCII."""
KEY_DESCRIPTION = "The same key and request get the same answer for a day; the same key with another, 409."
KEY_REUSED = ProblemKind(
    409,
    "idempotency-key-reused",
    "The Idempotency-Key belongs to another request",
    example="this Idempotency-Key was used for another request",
)

metadata = MetaData()

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("key", Text, primary_key=True),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("body_sha256", LargeBinary, nullable=False),
    # Null only until the transaction that inserts the row commits: nobody else ever sees that.
    Column("status", SmallInteger),
    Column("location", Text),
    Column("answer", LargeBinary),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
)

# Waits while another transaction is inserting the same key; returns a row only if the key was free.
_RESERVE = insert(idempotency_key).on_conflict_do_nothing().returning(idempotency_key.c.key)
_FIND = select(idempotency_key).where(idempotency_key.c.key == bindparam("wanted"))
_FILL = (
    update(idempotency_key)
    .where(idempotency_key.c.key == bindparam("reserved"))
    .values(status=bindparam("status"), location=bindparam("location"), answer=bindparam("answer"))
)
_PRUNE = text(
    """
    delete from idempotency_key where ctid = any (array(
      select ctid from idempotency_key
       where recorded_at < now() - make_interval(secs => :retention_s) limit :limit))
    """
)


class KeyReusedError(PermanentError):
    """The Idempotency-Key was used for another request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: what is stored, and sent again for the same key."""

    status: int
    body: bytes
    location: str | None = None

    def response(self, *, replayed: bool = False) -> Response:
        headers = {"location": self.location} if self.location else {}
        if replayed:
            headers["idempotent-replayed"] = "true"
        return Response(self.body, self.status, headers, "application/json")


async def answer_once(
    units: UnitsOfWork, request: Request, key: str | None, work: Callable[[UnitOfWork], Awaitable[Answer]]
) -> Response:
    """Do `work` in one transaction and answer; with a key that was served before, answer as then.

    Raises `KeyReusedError` for a key of another request, and whatever `work` raises.
    """
    if key is None:
        async with units.begin() as uow:
            answer = await work(uow)
        return answer.response()
    request_row: dict[str, object] = {
        "key": key,
        "method": request.method,
        "path": request.url.path,
        "body_sha256": hashlib.sha256(await request.body()).digest(),
    }
    async with units.begin() as uow:
        if (await uow.connection.execute(_RESERVE, request_row)).first() is None:
            return (await _stored(uow.connection, request_row)).response(replayed=True)
        answer = await work(uow)
        uow.tell(
            _FILL,
            {"reserved": key, "status": answer.status, "location": answer.location, "answer": answer.body},
        )
    return answer.response()


async def _stored(connection: AsyncConnection, request_row: dict[str, object]) -> Answer:
    row = (await connection.execute(_FIND, {"wanted": request_row["key"]})).mappings().one()
    if any(row[name] != value for name, value in request_row.items()):
        raise KeyReusedError("this Idempotency-Key was used for another request")
    return Answer(row["status"], row["answer"], row["location"])


async def prune(connection: AsyncConnection, retention_s: float = 86_400.0, limit: int = 5_000) -> int:
    """Forget up to `limit` keys older than `retention_s`; return how many."""
    result = await connection.execute(_PRUNE, {"retention_s": retention_s, "limit": limit})
    return result.rowcount
