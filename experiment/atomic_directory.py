"""A report's directory that is replaced as a whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiment.workload import WorkloadError


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A fresh directory to write into, which takes the place of `out` when the body ends.

    `out` is there whole, or as it was before.
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


def require_place(out: Path) -> None:
    """Refuse to replace a directory that holds something else than a report."""
    if out.exists() and not (out / "summary.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise WorkloadError(f"{out} exists and is no report: it will not be replaced")
