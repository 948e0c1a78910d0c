"""Pages of a list: where one ends, and whether another follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.pages import decode_sequence, page_of


@pytest.mark.parametrize(
    ("there", "limit", "shown", "continues_after"),
    [(0, 2, [], None), (1, 2, [1], None), (2, 2, [1, 2], None), (3, 2, [1, 2], 2), (9, 1, [1], 1)],
)
async def test_a_page_has_a_cursor_exactly_when_more_follows(
    there: int, limit: int, shown: list[int], continues_after: int | None
) -> None:
    rows, cursor = await page_of(fetch_of(there, 0), limit, int)
    assert list(rows) == shown
    assert (cursor and decode_sequence(cursor)) == continues_after


@given(there=st.integers(0, 40), limit=st.integers(1, 12))
async def test_the_pages_one_after_the_other_are_the_whole_list(there: int, limit: int) -> None:
    seen: list[int] = []
    after = 0
    while True:
        rows, cursor = await page_of(fetch_of(there, after), limit, int)
        seen += rows
        if cursor is None:
            break
        after = decode_sequence(cursor)
    assert seen == list(range(1, there + 1))


def fetch_of(there: int, after: int) -> Callable[[int], Awaitable[Sequence[int]]]:
    async def fetch(rows_max: int) -> Sequence[int]:
        return range(after + 1, there + 1)[:rows_max]

    return fetch
