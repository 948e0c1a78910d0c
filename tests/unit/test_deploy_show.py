"""What strangers wrote is shown on the operator's terminal, which takes none of it for a command."""

import io
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from deploy.show import dead_letters
from deploy.show.log_follow import print_logs
from deploy.show.printable import printable
from deploy.show.trace_tree import draw
from deploy.show.traces import Found, Span

TITLE = "\x1b]0;owned\x07"
CLEARED = "\x1b[2J\x9b31m\r"
SPOOFED = "\u202egnihtyna"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("order.placed: 3 < 4 [red]", "order.placed: 3 < 4 [red]"),
        ("Zoë 注文 🦊\tand more", "Zoë 注文 🦊\tand more"),
        (TITLE, r"\x1b]0;owned\x07"),
        (CLEARED, r"\x1b[2J\x9b31m\r"),
        (SPOOFED, r"\u202egnihtyna"),
        ("a\nb\x00\ud800", r"a\nb\x00\ud800"),
    ],
)
def test_a_terminal_is_told_nothing_by_a_text(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_dead_letters_tell_the_terminal_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = {
        "subscriber": "mail",
        "channel": "order",
        "type": TITLE,
        "error_type": CLEARED,
        "error_message": SPOOFED,
        "count": 1,
        "states": {"pending": 1},
        "first_seen_at": "2026-11-28T00:00:00Z",
        "last_seen_at": "2026-11-28T00:00:00Z",
        "fingerprint": "0" * 64,
    }
    answer = httpx.Response(200, json={"items": [group]}, request=httpx.Request("GET", "http://test"))
    monkeypatch.setattr(httpx, "get", lambda *_, **__: answer)

    dead_letters.print_dead_letters("http://test", dict, 10)

    said = capsys.readouterr().out
    assert r"\x1b]0;owned\x07" in said
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & {*said}


def test_a_trace_tells_the_terminal_nothing() -> None:
    span = Span("1" * 32, "2" * 16, None, TITLE, CLEARED, "server", 0, 1, SPOOFED, (), frozenset())
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        for tree in draw(Found({span.trace_id: [span]}, {})):
            console.print(tree)

    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & {*capture.get()}


def test_a_log_tells_the_terminal_nothing(tmp_path: Path) -> None:
    (tmp_path / "postgres.log").write_text(f"DETAIL:\tKey ({TITLE}) is there\n")
    out = io.StringIO()

    print_logs({"postgres": tmp_path / "postgres.log"}, out, follow=False)

    assert out.getvalue() == "postgres | DETAIL:\tKey (\\x1b]0;owned\\x07) is there\n"
