"""`make jobs` and `make job ID=`: the list, the tree, exit codes, and one sentence where something is wrong."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rich.console import Console

from deploy.command_line import main
from deploy.errors import DeployError
from deploy.show.jobs import JobTree, events_in, print_jobs, watch_job

JOB = "0198c0de-0000-7000-8000-000000000001"
FAILED = "0198c0de-0000-7000-8000-000000000002"
NOTHING = "0198c0de-0000-7000-8000-000000000003"


def step(number: int, state: str, *parents: int, **more: Any) -> dict[str, Any]:
    ended = "2026-11-28T09:00:03Z" if state in {"succeeded", "failed"} else None
    given = {"attempt": 1, "progress": None, "error": None, "finished_at": ended, "handler": f"step{number}"}
    return {
        "id": str(number),
        "number": number,
        "state": state,
        "parents": [str(p) for p in parents],
        **given,
        **more,
    }


def job(state: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    ended = "2026-11-28T09:00:04Z" if state in {"succeeded", "failed"} else None
    still = sum(one["finished_at"] is None for one in steps)
    counts = {"step_count": len(steps), "open_steps": still, "failed_steps": 0}
    times = {"submitted_at": "2026-11-28T09:00:00Z", "finished_at": ended}
    return {"id": JOB, "kind": "report", "state": state, **counts, **times, "steps": list(steps), **more}


ANSWERS: dict[str, tuple[int, Any]] = {
    "/jobs?state=failed&limit=5": (200, {"items": [job("failed", step(0, "failed"), id=FAILED)]}),
    "/jobs?limit=5": (200, {"items": []}),
    f"/jobs/{JOB}": (200, job("succeeded", step(0, "succeeded"))),
    f"/jobs/{FAILED}": (
        200,
        job("failed", step(0, "failed", error={"type": "ValueError", "message": "no\x1b[2J"})),
    ),
    f"/jobs/{NOTHING}": (404, {"detail": f"job {NOTHING} does not exist"}),
}


class Canned(BaseHTTPRequestHandler):
    """Answers as the jobs service would."""

    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def drawn(tree: JobTree) -> list[str]:
    console = Console(width=200, highlight=False)
    with console.capture() as captured:
        console.print(tree.drawn())
    return [line.rstrip() for line in captured.get().splitlines()]


def test_jobs_are_listed_as_the_filters_say(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_jobs(service, {"state": "failed", "kind": None}, 5)
    listed = capsys.readouterr().out
    assert all(part in listed for part in (FAILED, "report", "failed", "1/1", "4.0 s"))
    print_jobs(service, {}, 5)
    assert capsys.readouterr().out == "no jobs\n"


def test_a_job_is_drawn_and_its_end_is_the_exit_code(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch_job(service, JOB) == 0
    assert "step0  succeeded" in capsys.readouterr().out
    assert watch_job(service, FAILED) == 1
    shown = capsys.readouterr().out
    assert "ValueError: no�[2J" in shown, "what a handler says gives the terminal no orders"


def test_what_is_wrong_is_one_sentence(service: str) -> None:
    with pytest.raises(DeployError, match=r"^job .* does not exist$"):
        watch_job(service, NOTHING)
    with pytest.raises(DeployError, match=r"^'seven' is not the id of a job$"):
        watch_job(service, "seven")
    with pytest.raises(DeployError, match=r"^the jobs service at http://127.0.0.1:9 does not answer: "):
        print_jobs("http://127.0.0.1:9", {}, 5)


def test_a_step_hangs_below_the_first_that_it_waits_for_and_its_progress_moves() -> None:
    tree = JobTree(job("running", step(0, "succeeded"), step(1, "running", 0), step(2, "waiting", 0, 1)))
    progress = {"current": 5.0, "total": 20.0, "message": "page 5 [red]"}
    for event, data in events_in(
        ["event: step", f"data: {json.dumps({'id': '1', 'progress': progress, 'attempt': 2})}", "", ": alive", ""]
    ):
        tree.on_event(event, data)
    root, first, second, third = drawn(tree)
    assert root.startswith("report  running  1 of 3 steps")
    assert first == "└── step0  succeeded"
    assert second == "    ├── step1  running  attempt 2  ━━━━━━━━━━━━  25%  page 5 [red]"
    assert third == "    └── step2  waiting  after 2 steps"
    tree.on_event("job", {"state": "succeeded", "open_steps": 0, "finished_at": "2026-11-28T09:00:05Z"})
    assert (tree.has_ended, drawn(tree)[0]) == (True, "report  succeeded  3 of 3 steps  5.0 s")


def test_of_many_steps_those_are_drawn_that_have_not_ended() -> None:
    many = [step(number, "succeeded") for number in range(300)]
    tree = JobTree(job("running", *many, step(300, "running", 0, 1), step_count=1_000, open_steps=700))
    lines = drawn(tree)
    assert len(lines) == 43
    assert any("step300  running" in line for line in lines)
    assert lines[-2:] == ["├── 261 more: 261 succeeded", "└── 699 more, which are not watched"]


def test_the_jobs_of_every_service_that_has_workers_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["job", JOB, "--service", "order"])
    assert re.search(r"choose from '?fraud'?, '?jobs'?, '?notification'?, '?report'?", capsys.readouterr().err)
