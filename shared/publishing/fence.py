"""A fence: a row that a unit of work inserts in the first statement of its last flush.

Where the row is there already, that statement fails by the row's primary key, and nothing of the unit is written.
What is one statement besides is one still, and so a transaction by itself. What was sent before may have been
taken back to a savepoint, and the row with it.
"""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Executable, TextClause, UpdateBase, text

from shared.publishing.told import Row, Statement, runs_once

Fence = tuple[TextClause, Row]
"""A plain `insert`, and its parameters, whose names no other statement has."""

_WITH = "with "
_WRITING = ("insert into ", "update ", "delete from ")


def put_before(statements: list[Statement], fence: Fence) -> int:
    """Have the fence's row inserted by the first of `statements`, or, where that cannot be, before it; return how
    many places they have moved."""
    insert, row = fence
    if statements:
        first, parameters = statements[0]
        both = fenced(first, insert)
        if both is not None and runs_once(parameters):
            statements[0] = (both, {**parameters, **row})
            return 0
    statements.insert(0, fence)
    return 1


@lru_cache(maxsize=512)
def fenced(statement: Executable, insert: TextClause) -> Executable | None:
    """The statement that does the same and what `insert` does; None where there is none.

    PostgreSQL does the latter last, so that what is there already may have been waited for before.
    """
    if isinstance(statement, UpdateBase):
        return statement.add_cte(insert.columns().cte("fence"))
    if not isinstance(statement, TextClause):
        return None
    written, fence = statement.text.lstrip(), f"with fence as ({insert.text})"
    if written.startswith(_WITH) and not written.startswith("with recursive"):
        both = f"{fence}, {written.removeprefix(_WITH)}"
    elif written.startswith(_WRITING):
        both = f"{fence} {written}"
    else:
        return None
    return text(both).bindparams(*statement._bindparams.values())  # noqa: SLF001 - with the types that they have
