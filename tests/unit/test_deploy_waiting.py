"""Waiting for a process: how the wait ends, whatever the probe does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.errors import StartError
from deploy.native.ports import Ports
from deploy.native.readiness import Probe, await_ready
from deploy.native.site import Site
from deploy.native.supervision import Supervisor

LONG_S = 3_600.0


class Asked:
    """A probe that never answers, and what became of it."""

    def __init__(self) -> None:
        self.when_begun: Callable[[], object] = bool
        self.has_ended = False

    async def __call__(self) -> None:
        self.when_begun()
        try:
            await asyncio.sleep(LONG_S)
        finally:
            self.has_ended = True


class Rows(Supervisor):
    """All is well with the process."""

    def process(self, name: str) -> dict[str, object]:
        return {"name": name, "start": 1, "statename": "RUNNING"}


def waiting(tmp_path: Path, probe: Probe, cancelled: threading.Event, timeout_s: float = LONG_S) -> None:
    supervisor = Rows(Site.open(tmp_path, Ports(25000)))
    await_ready("it", probe, supervisor, tmp_path / "it.log", timeout_s=timeout_s, cancelled=cancelled)


def test_who_gives_up_a_wait_does_not_wait_for_the_answer_of_its_probe(tmp_path: Path) -> None:
    asked, cancelled = Asked(), threading.Event()
    asked.when_begun = cancelled.set
    with pytest.raises(StartError, match="given up"):
        waiting(tmp_path, asked, cancelled)
    assert asked.has_ended


def test_a_probe_that_never_answers_ends_with_the_time(tmp_path: Path) -> None:
    asked = Asked()
    with pytest.raises(StartError, match=r"not become ready within 0 s \(TimeoutError: no answer in time\)"):
        waiting(tmp_path, asked, threading.Event(), timeout_s=0.2)
    assert asked.has_ended


def test_what_answers_at_the_second_time_is_ready(tmp_path: Path) -> None:
    answers = iter([OSError("nobody there"), None])

    async def probe() -> None:
        if error := next(answers):
            raise error

    waiting(tmp_path, probe, threading.Event())
    assert next(answers, "all asked") == "all asked"
