"""A process is known by when it started, counted from the machine's own start and not by the clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from deploy.birth import start_ticks


def test_a_process_keeps_its_start_and_a_later_one_has_a_later() -> None:
    ours = start_ticks(os.getpid())
    assert ours is not None
    assert ours == start_ticks(os.getpid())
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    assert 0 < ours <= time.clock_gettime(time.CLOCK_BOOTTIME) * ticks_per_s
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        born = start_ticks(later.pid)
        assert born is not None
        assert born >= ours
        later.kill()


def test_a_process_that_has_ended_has_none_though_nobody_has_collected_it() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it is a zombie from here on
    assert start_ticks(child) is None
    os.waitpid(child, 0)
    assert start_ticks(child) is None


def test_a_name_with_brackets_and_spaces_is_read_past() -> None:
    name_itself = "open('/proc/self/comm', 'w').write(') S (x'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", name_itself], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        born = start_ticks(process.pid)
        process.kill()
    assert born is not None
    assert born > 1_000
