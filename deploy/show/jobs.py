"""Shows jobs in the terminal, as the jobs service tells of them: the list, and one as a tree that lives."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import httpx
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from deploy.errors import DeployError

_TIMEOUT_S: Final = 10.0
_SILENCE_MAX_S: Final = 45.0
"""Three signs of life of the stream."""
_STEPS_DRAWN_MAX: Final = 40
_BAR: Final = 12
_STYLES: Final = {
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "running": "cyan",
    "skipped": "dim",
}
_LOST: Final = frozenset({"failed", "cancelled"})


def print_jobs(service_url: str, filters: Mapping[str, str | None], limit: int) -> None:
    """Print the newest jobs of the service that the filters allow. Raises `DeployError`."""
    asked = {name: value for name, value in filters.items() if value is not None}
    jobs = _get(f"{service_url}/jobs?{urlencode({**asked, 'limit': limit})}")["items"]
    console = Console(width=None if sys.stdout.isatty() else 200)  # a pipe has no width
    if not jobs:
        console.print("no jobs")
        return
    table = Table("id", "kind", "state", "steps", "failed", "submitted", "took")
    for job in jobs:
        ended = f"{job['step_count'] - job['open_steps']}/{job['step_count']}"
        row = (_plain(job["kind"]), _styled(job["state"]), ended, str(job["failed_steps"]))
        table.add_row(job["id"], *row, job["submitted_at"][:19], _took(job))
    console.print(table)


def watch_job(service_url: str, job_id: str) -> int:
    """Draw a job with its steps until it has ended; where nobody watches, once, as it stands.

    Returns 1 when it has failed or was cancelled. Raises `DeployError`.
    """
    try:
        url = f"{service_url}/jobs/{UUID(job_id)}"
    except ValueError:
        raise DeployError(f"{job_id!r} is not the id of a job") from None
    board = JobTree(_get(url))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if console.is_terminal and not board.has_ended:
        with Live(board.drawn(), console=console, auto_refresh=False) as live:
            for event, data in _events(f"{url}/events"):
                board.on_event(event, data)
                live.update(board.drawn(), refresh=True)
        board = JobTree(_get(url))
    else:
        console.print(board.drawn())
    return 1 if board.state in _LOST else 0


class JobTree:
    """A job and its steps, each below the first of those that it waits for."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = dict(job)
        self._steps: dict[str, dict[str, Any]] = {step["id"]: step for step in job["steps"]}

    @property
    def state(self) -> str:
        return str(self._job["state"])

    @property
    def has_ended(self) -> bool:
        return self._job["finished_at"] is not None

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """What the stream tells: a `job`, or a `step`."""
        if event == "job":
            self._job.update(data)
        elif event == "step" and data["id"] in self._steps:
            self._steps[data["id"]].update(data)

    def drawn(self) -> Tree:
        """As it stands; of many steps those first that have not ended."""
        job = self._job
        ended = f"{job['step_count'] - job['open_steps']} of {job['step_count']} steps"
        tree = Tree(
            f"[bold]{_plain(job['kind'])}[/bold]  {_styled(job['state'])}  {ended}  [dim]{_took(job)}[/dim]"
        )
        drawn = self._chosen()
        branches: dict[str, Tree] = {}
        for step in drawn:
            above = next((branches[parent] for parent in step["parents"] if parent in branches), tree)
            branches[step["id"]] = above.add(_line(step))
        left = Counter(step["state"] for step in self._steps.values() if step["id"] not in branches)
        if left:
            tree.add(f"[dim]{sum(left.values())} more: {_counts(left)}[/dim]")
        unseen = job["step_count"] - len(self._steps)
        if unseen > 0:
            tree.add(f"[dim]{unseen} more, which are not watched[/dim]")
        return tree

    def _chosen(self) -> list[dict[str, Any]]:
        by_need = sorted(self._steps.values(), key=lambda step: (step["finished_at"] is not None, step["number"]))
        return sorted(by_need[:_STEPS_DRAWN_MAX], key=lambda step: step["number"])


def _line(step: Mapping[str, Any]) -> str:
    parts = [f"{_plain(step['handler'])}  {_styled(step['state'])}"]
    if step["attempt"] > 1:
        parts.append(f"attempt {step['attempt']}")
    if step["state"] == "running" and step["progress"]:
        parts.append(_bar(step["progress"]))
    if len(step["parents"]) > 1:
        parts.append(f"[dim]after {len(step['parents'])} steps[/dim]")
    if step["error"]:
        parts.append(f"[red]{_plain(step['error']['type'])}: {_plain(step['error']['message'])[:120]}[/red]")
    return "  ".join(parts)


def _bar(progress: Mapping[str, Any]) -> str:
    current, total = progress["current"] or 0.0, progress["total"] or 0.0
    share = min(max(current / total, 0.0), 1.0) if total > 0 else 0.0
    full = round(share * _BAR)
    return f"{'━' * full}[dim]{'━' * (_BAR - full)}[/dim] {share:4.0%}  {_plain(progress['message'])[:80]}"


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def _styled(state: str) -> str:
    style = _STYLES.get(state)
    return f"[{style}]{state}[/{style}]" if style else state


def _plain(told: str) -> str:
    """Somebody's text, without what a terminal or the markup would take for orders."""
    return escape("".join(character if character.isprintable() else "�" for character in told))


def _took(job: Mapping[str, Any]) -> str:
    begin = datetime.fromisoformat(job["submitted_at"])
    end = datetime.now(UTC) if job["finished_at"] is None else datetime.fromisoformat(job["finished_at"])
    return f"{max(0.0, (end - begin).total_seconds()):.1f} s"


def _get(url: str) -> dict[str, Any]:
    with _unanswered(url):
        answer = httpx.get(url, timeout=_TIMEOUT_S, trust_env=False)
    return _require(answer).json()  # type: ignore[no-any-return]


@contextmanager
def _unanswered(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise DeployError(f"the jobs service at {url.partition('/jobs')[0]} does not answer: {error}") from error


def _require(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        try:
            said = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            said = f"the jobs service answers {answer.status_code}"
        raise DeployError(said)
    return answer


def _events(url: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Event and data until the stream ends. Raises `DeployError`."""
    timeout = httpx.Timeout(_TIMEOUT_S, read=_SILENCE_MAX_S)
    with _unanswered(url), httpx.stream("GET", url, timeout=timeout, trust_env=False) as answer:
        if answer.is_error:
            answer.read()
        yield from events_in(_require(answer).iter_lines())


def events_in(lines: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Event and data of server-sent events, each with one line of data, as the jobs service sends them."""
    event = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)
