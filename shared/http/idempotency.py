"""Idempotency-Key: the same key and request get the same answer, however often they are sent.

The answer is stored in the transaction that did the work, so that there is an answer exactly when there is
an effect. A request with a key that another one is using waits for it and gets its answer. The key belongs to
one request of this service: method, path and JSON body; the same key with another request is a 409.
Only answers that changed something are stored: a refusal (4xx) rolls back, key included, and a later
request with that key is judged anew.

Source: draft-ietf-httpapi-idempotency-key-header-07. The field is a string of RFC 8941 (3.3.3): `"k1"` is the
key k1. Without quotes, as many clients send it, it is the same key; then it has no blanks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

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
from shared.http.problems import InvalidRequestError, ProblemKind
from shared.publishing import UnitOfWork, UnitsOfWork

_HEADER: Final = "Idempotency-Key"
_FIELD: Final = _HEADER.lower().encode()
_CHARACTER: Final = r"""(?:[ !#-\[\]-~]|\\["\\])"""
_STRING: Final = rf'"{_CHARACTER}{{1,255}}"'
_PARAMETER: Final = rf'(?:; *[a-z*][a-z0-9_.*-]*(?:=(?:"{_CHARACTER}*"|[!#-+\--:<-~]+))?)'
KEY_PATTERN: Final = rf"^(?:[!#-~][!-~]{{0,254}}|{_STRING}{_PARAMETER}*)$"
"""1 to 255 visible characters of ASCII, or as many, blanks too, in quotes; parameters behind these say nothing."""
KEY_DESCRIPTION: Final = (
    "The same key and request get the same answer for a day; the same key with another, 409. "
    'A string as in RFC 8941, `"order 42"`; without blanks and quotes in it, the quotes may be left out.'
)
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


def check_key(value: object) -> object:
    """The value of the field as it came. Raises `ValueError`, which says what a key is, for anything else."""
    if isinstance(value, str) and re.search(KEY_PATTERN, value) is None:
        raise ValueError("a key has 1 to 255 visible ASCII characters; one with blanks is put in double quotes")
    return value


def stored_as(value: str) -> str:
    """The key that a value of the field, matching `KEY_PATTERN`, is stored under: what the quotes hold.

    But with them where that begins with a quote itself: earlier versions stored every key as it came, and what
    is stored with quotes is theirs, or cannot be mistaken for it.
    """
    quoted = re.match(_STRING, value)
    if quoted is None:
        return value
    key = re.sub(r"\\(.)", r"\1", quoted[0][1:-1])
    return quoted[0] if key.startswith('"') else key


def require_one_key(request: Request) -> None:
    """Raises `InvalidRequestError` for a field that is sent twice."""
    if [name for name, _ in request.scope["headers"]].count(_FIELD) > 1:
        raise InvalidRequestError(["header", _HEADER], "a request has one key, in one line")


async def answer_once(
    units: UnitsOfWork,
    request: Request,
    key: str | None,
    work: Callable[[UnitOfWork], Awaitable[Answer]],
    *,
    of: str | None = None,
) -> Response:
    """Do `work` in one transaction and answer; with a key that was served before, answer as then.

    `key` is the value of the field, matching `KEY_PATTERN`. Where requests are somebody's, `of` says whose: equal
    keys of two are different ones. Raises `KeyReusedError` for a key of another request,
    `InvalidRequestError` for a field that is sent twice, and whatever `work` raises.
    """
    require_one_key(request)
    if key is None:
        async with units.begin() as uow:
            answer = await work(uow)
        return answer.response()
    whose = "" if of is None else f"{of}\n"  # no key has a line break
    request_row: dict[str, object] = {
        "key": whose + stored_as(key),
        "method": request.method,
        "path": request.url.path,
        "body_sha256": hashlib.sha256(await request.body()).digest(),
    }
    async with units.begin() as uow:
        stored = None
        if stored_as(key) != key and of is None:
            stored = await _find(uow.connection, {**request_row, "key": key})  # of an earlier version
        if stored is None and (await uow.connection.execute(_RESERVE, request_row)).first() is None:
            stored = await _find(uow.connection, request_row)
            assert stored is not None, "a key that is taken has a row"
        if stored is not None:
            return stored.response(replayed=True)
        answer = await work(uow)
        uow.tell(
            _FILL,
            {
                "reserved": request_row["key"],
                "status": answer.status,
                "location": answer.location,
                "answer": answer.body,
            },
        )
    return answer.response()


async def _find(connection: AsyncConnection, request_row: dict[str, object]) -> Answer | None:
    """The answer that is stored for a request, None without one. Raises `KeyReusedError` for that of another."""
    row = (await connection.execute(_FIND, {"wanted": request_row["key"]})).mappings().one_or_none()
    if row is None:
        return None
    if any(row[name] != value for name, value in request_row.items()):
        raise KeyReusedError("this Idempotency-Key was used for another request")
    return Answer(row["status"], row["answer"], row["location"])


async def prune(connection: AsyncConnection, retention_s: float = 86_400.0, limit: int = 5_000) -> int:
    """Forget up to `limit` keys older than `retention_s`; return how many."""
    result = await connection.execute(_PRUNE, {"retention_s": retention_s, "limit": limit})
    return result.rowcount
