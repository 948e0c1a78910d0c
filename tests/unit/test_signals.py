"""A run ends in good order on the first signal, however many follow."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from experiment.signals import run_until_signal

REPOSITORY = Path(__file__).parents[2]
FLOODED = """
import asyncio, os, signal, subprocess, sys
from experiment.signals import Interrupted, raise_on_first_signal, run_until_signal

cleaned = 0

async def work():
    global cleaned, flooding
    try:
        # From here on, since what ends before it has begun has nothing to clean up.
        flood = "import os\\nfor _ in range(400): os.kill(%d, 2)" % os.getpid()
        flooding = subprocess.Popen([sys.executable, "-S", "-E", "-c", flood])
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.001)
        cleaned += 1

for _ in range(100):
    raise_on_first_signal()
    try:
        run_until_signal(work())
    except Interrupted as name:
        assert str(name) == "SIGINT", name
    else:
        raise SystemExit("nobody was interrupted")
    flooding.wait()
print(cleaned)
"""


def test_however_often_one_presses_a_run_ends_once_and_cleans_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLOODED], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "100"), done.stderr


def test_what_was_imported_is_left_out_of_collections_while_a_run_measures() -> None:
    gc.unfreeze()

    async def collected() -> tuple[int, int]:
        return gc.get_freeze_count(), len(gc.get_objects())

    frozen, left = run_until_signal(collected())
    assert frozen > 10 * left > 0
