"""Replaces the directory of a report as a whole: it is the new one or the old one, never half of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotAReportError(Exception):
    """What would be replaced is no report; the message is one sentence that names it."""


@contextmanager
def replace_directory(out: Path) -> Iterator[Path]:
    """A fresh directory to write into, which takes the place of `out` when the body ends.

    When the body fails, `out` stays as it was.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        before = fresh.with_name(f"{fresh.name}.before")
        if out.exists():
            out.rename(before)
        fresh.rename(out)
        shutil.rmtree(before, ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def require_report_or_nothing(out: Path) -> None:
    """Raise `NotAReportError` where something else than a report would be replaced."""
    if out.exists() and not (out / "summary.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise NotAReportError(f"{out} exists and is no report: it will not be replaced")
