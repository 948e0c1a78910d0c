"""Which dead letters have one cause, and that finding it out takes no longer than their length allows."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dead_letter.domain import fingerprint, normalised

ID = "0198c0de-0000-7000-8000-000000000001"
STACK = 'File "{root}/services/order/handlers.py", line {line}, in on_paid\nFile "/lib/x.py", line 1, in f\n'


def of(message: str, *, queue: str = "a.b", error: str = "KeyError", root: str = "/app", line: int = 1) -> str:
    return fingerprint(queue, error, message, STACK.format(root=root, line=line))


@pytest.mark.parametrize(
    "message",
    [
        "user 0198c0de-1111-7000-8000-00000000000a has -3 left at 12:30:01.5",
        "user FFFFFFFF-2222-7000-8000-00000000000b has 12.5 left at 08:00:59",
    ],
)
def test_ids_and_numbers_do_not_tell_causes_apart(message: str) -> None:
    same = of("user 00000000-0000-0000-0000-000000000000 has 7 left at 1:00", root="/elsewhere", line=77)
    assert of(message) == same


def test_quoted_values_addresses_and_hexadecimal_do_not_tell_causes_apart() -> None:
    assert of("""no 'tea' for "ada" <ada@example.org> at 0x7f01, digest a1b2c3d4""") == of(
        """no 'coffee' for "bob" <bob@example.com> at 0xFFFF, digest 99aabbcc"""
    )


def test_type_place_words_and_subscriber_tell_causes_apart() -> None:
    known = of("no user 1")
    assert known != of("no order 1")
    assert known != of("no user 1", queue="a.c")
    assert known != of("no user 1", error="ValueError")
    assert known != fingerprint("a.b", "KeyError", "no user 1", "")
    assert len(known) == 32


def test_fingerprints_are_those_of_the_groups_that_are_open() -> None:
    """They are kept in rows: another way to make them would split every open group."""
    assert of("no user 1 in 'tea'") == "ac9fc442be7e517db2ae7e7fd34b40b7"
    assert fingerprint("a.b", "KeyError", "no user", "") == "1c8ee6c987215504bbec4444ea260859"


def test_a_function_that_moves_to_another_file_or_becomes_public_leaves_its_group_as_it_is() -> None:
    before = 'File "/app/shared/pipeline.py", line 7, in _run\n'
    after = 'File "/app/shared/consuming/transaction.py", line 70, in run\n'
    assert fingerprint("a.b", "TimeoutError", "", before) == fingerprint("a.b", "TimeoutError", "", after)
    elsewhere = 'File "/app/shared/consuming/transaction.py", line 70, in begin\n'
    assert fingerprint("a.b", "TimeoutError", "", before) != fingerprint("a.b", "TimeoutError", "", elsewhere)


def test_where_an_event_turns_out_to_be_unusable_before_it_has_a_handler_tells_no_causes_apart() -> None:
    assert of("mail.order knows no order.paid", error="UnknownEventTypeError") == fingerprint(
        "a.b", "UnknownEventTypeError", "mail.order knows no order.paid", ""
    )


@given(st.text(max_size=2_000), st.text(max_size=2_000))
def test_anything_has_a_fingerprint(message: str, stack: str) -> None:
    assert len(fingerprint("a.b", "E", message, stack)) == 32


LONG = 300_000
"""With the square of so many characters a fingerprint takes minutes, in proportion to them about a second."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "of_a_stranger",
    [
        "x" * LONG,
        "'" * (LONG + 1),
        "''x" * (LONG // 3),
        "'@'" + "''" * (LONG // 2),
        "1x" * LONG,
        "0a" * LONG + "g",
    ],
    ids=[
        "one word",
        "quotes",
        "quotes in a word",
        "an address in quotes",
        "numbers in a word",
        "nearly hexadecimal",
    ],
)
def test_a_long_message_takes_no_longer_in_proportion_than_a_short_one(of_a_stranger: str) -> None:
    assert len(fingerprint("a.b", "E", of_a_stranger, "")) == 32


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "of_a_stranger",
    [
        'File "' + "tests/" * (LONG // 6),
        'File "tests/' * (LONG // 12),
        'File "' + "tests/" * (LONG // 6) + '.py", line ' + "1" * LONG,
    ],
    ids=["folders", "files", "lines"],
)
def test_a_long_stack_takes_no_longer_in_proportion_than_a_short_one(of_a_stranger: str) -> None:
    assert fingerprint("a.b", "E", "", of_a_stranger) == fingerprint("a.b", "E", "", "")


_PATTERN_OF_BEFORE = re.compile(
    r"""
      '[^']*' | "[^"]*" | `[^`]*`
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}
    | \S+@\S+
    | 0x[0-9a-f]+ | \b(?=[0-9a-f]*[0-9])[0-9a-f]{6,}\b
    | [-+]?\d+(?:[.,:]\d+)*
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Of the groups that are open; on a long word it takes time with the square of its length."""
_PIECES = st.sampled_from(
    [
        "'",
        '"',
        "`",
        "@",
        " ",
        "\t",
        "\n",
        "a",
        "f0",
        "12",
        ".",
        ":",
        "-",
        "+",
        "0x",
        "é",
        "word",
        "deadbeef1",
        ID,
    ]
)


@given(st.lists(_PIECES, max_size=16).map("".join) | st.text(max_size=100))
def test_every_message_is_read_as_it_was_when_the_open_groups_began(message: str) -> None:
    assert normalised(message) == " ".join(_PATTERN_OF_BEFORE.sub("#", message).split())
