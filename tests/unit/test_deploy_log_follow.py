import io
import time
from pathlib import Path

import pytest

from deploy.show.log_follow import print_logs


def test_the_end_of_each_log_is_printed_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "order.log").write_text("one\ntwo\nthree\n")
    out = io.StringIO()

    files = {"order": tmp_path / "order.log", "order-consumer": tmp_path / "missing.log"}
    print_logs(files, out, follow=False, lines=2)

    assert out.getvalue() == "order          | two\norder          | three\n"


def test_following_goes_on_through_a_rotation_and_prints_whole_lines_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "order.log"
    log.write_text("old\n")
    writes = iter(["old\nadded\nhal", "new\n"])

    def instead_of_waiting(_seconds: float) -> None:
        text = next(writes, None)
        if text is None:
            raise KeyboardInterrupt
        log.write_text(text)

    monkeypatch.setattr(time, "sleep", instead_of_waiting)
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        print_logs({"order": log}, out, follow=True)

    assert out.getvalue().splitlines() == ["order | old", "order | added", "order | new"]
