"""Reads the arguments of `python -m compare`, runs the comparison and reports.

`python -m compare report DIR` makes the pages of a report again; `python -m compare schema` prints what
`summary.json` looks like.

With RUNTIME=docker it runs in containers (`compare.containers`), otherwise as processes of this machine.

Exit codes: 0 all sound; 1 an event was lost, doubled, reordered or left behind, a control failed, the run did, or
something stayed on a broker of one's own; 2 a bad option, setting or workload, or a broker of one's own or an
engine that cannot be used; 130 interrupted. A run that was cut short leaves what it measured in `…-partial`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from compare.changes import changes
from compare.containers import engine_for, run_in_containers
from compare.decision import Preferences, PreferencesError, load_preferences, recommend
from compare.document import DocumentError, Summary, read_summary, schema
from compare.ending import RefusedError, code_of, partial_place, place_of, unless_it_fails, writing
from compare.report import print_report, render_again, write_report, write_summary
from compare.run import run
from compare.summary import summarise
from deploy.paths import REPOSITORY
from experiment.atomic_directory import replace_directory, require_report_or_nothing
from experiment.logs import log_errors_alone
from experiment.own_brokers import OwnBrokers, take_from
from experiment.profiles import PROFILES
from experiment.workload import load_workload
from shared.errors import ConfigurationError

DEFAULT_WORKLOAD = Path(__file__).resolve().parent / "workloads" / "default.yml"
_FULL_WORKLOAD = DEFAULT_WORKLOAD.with_name("full.yml")
_DEFAULT_OUT = Path("reports/latest")
_RUN_ROOT = REPOSITORY / ".run"


def main(arguments: Sequence[str]) -> int:
    """Run one comparison and return its exit code."""
    log_errors_alone()
    if arguments[:1] in (["report"], ["schema"]):
        return _document(arguments)
    chosen = _parser().parse_args(arguments)
    return unless_it_fails(lambda: _compare(chosen))


def _compare(chosen: argparse.Namespace) -> int:
    """Check everything that was asked, run it and report; returns the exit code."""
    out: Path = chosen.out
    own = _own_brokers()
    workload = load_workload(chosen.workload, chosen.rounds, chosen.profile)
    for place in (out, partial_place(out)):
        require_report_or_nothing(place)
    asked = _Asked.read(chosen)
    engine = engine_for(workload, own)
    if engine is not None:
        take = partial(_take, asked=asked, out=out)
        return run_in_containers(engine, workload, _command(chosen, own), _RUN_ROOT, take)
    outcome = run(workload, _RUN_ROOT, own)
    summary = summarise(outcome, _command(chosen, own))
    summary |= asked.answers(Summary.model_validate(summary))
    out = place_of(out, summary)
    with writing():
        write_report(out, outcome, summary)
    print_report(summary, out)
    return code_of(outcome, summary)


def _take(found: Path, *, asked: _Asked, out: Path) -> None:
    """Put the report of a run in containers where it belongs, with the answers, and print it."""
    summary = json.loads((found / "summary.json").read_bytes())
    answers = asked.answers(read_summary(found))
    summary |= answers
    out = place_of(out, summary)
    with writing(), replace_directory(out) as fresh:
        shutil.copytree(found, fresh, dirs_exist_ok=True)
        if answers:
            write_summary(fresh, summary)
    print_report(summary, out)


def _own_brokers() -> OwnBrokers:
    try:
        return take_from(os.environ)
    except ConfigurationError as error:
        raise RefusedError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m compare", description="Run the same services on RabbitMQ and on Kafka and compare them."
    )
    parser.add_argument("--workload", type=Path, default=DEFAULT_WORKLOAD, help="YAML file that says what load")
    parser.add_argument("--rounds", type=_rounds, help="how often each phase runs on each broker")
    parser.add_argument("--profile", choices=sorted(PROFILES), help="what both brokers promise by confirming")
    _add_questions(parser)
    parser.add_argument("--out", type=Path, default=_DEFAULT_OUT, help="directory of the report, replaced")
    return parser


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of a run besides its figures, read before it begins."""

    where: Path | None
    base: Summary | None
    preferences: Preferences | None

    @classmethod
    def read(cls, chosen: argparse.Namespace) -> _Asked:
        """Raises `DocumentError` and `PreferencesError`."""
        base = read_summary(chosen.base) if chosen.base else None
        return cls(chosen.base, base, load_preferences(chosen.prefer) if chosen.prefer else None)

    def answers(self, summary: Summary) -> dict[str, Any]:
        """What goes into the summary."""
        found: dict[str, Any] = {}
        if self.base is not None:
            found["changes"] = changes(self.base, summary, str(self.where)).model_dump(mode="json")
        if self.preferences is not None:
            found["recommendation"] = recommend(summary, self.preferences).model_dump(mode="json")
        return found


def _add_questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, help="directory of another report: say what changed since")
    parser.add_argument("--prefer", type=Path, help="YAML file of musts, weights and prices: recommend a broker")


def _document(arguments: Sequence[str]) -> int:
    """`report DIR` and `schema`."""
    parser = _Parser(prog="python -m compare")
    kinds = parser.add_subparsers(dest="kind", required=True)
    report = kinds.add_parser("report", description="Make report.html and report.md again from summary.json.")
    report.add_argument("directory", type=Path)
    _add_questions(report)
    kinds.add_parser("schema", description="Print the JSON Schema of summary.json.")
    chosen = parser.parse_args(arguments)
    if chosen.kind == "schema":
        print(schema(), end="")
        return 0
    try:
        summary = read_summary(chosen.directory)
        answers = _Asked.read(chosen).answers(summary)
        print(render_again(chosen.directory, Summary.model_validate(summary.model_dump() | answers)))
    except (DocumentError, PreferencesError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence; the list of options is what --help is for."""
        print(f"compare: {message}", file=sys.stderr)
        raise SystemExit(2)


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds from 1 to 100")
    return int(text)


def _command(chosen: argparse.Namespace, own: OwnBrokers) -> str:
    """The command that does this run again, without accounts."""
    words = ["RUNTIME=docker"] if os.environ.get("RUNTIME") == "docker" else []
    words += [*(word for each in own for word in each.again.split()), "make", "compare"]
    if chosen.workload.resolve() == _FULL_WORKLOAD:
        words.append("FULL=1")
    elif chosen.workload != DEFAULT_WORKLOAD:
        words.append(f"WORKLOAD={chosen.workload}")
    if chosen.rounds is not None:
        words.append(f"ROUNDS={chosen.rounds}")
    asked = {name: getattr(chosen, name) for name in ("profile", "base", "prefer")}
    words += [f"{name.upper()}={value}" for name, value in asked.items() if value]
    if chosen.out != _DEFAULT_OUT:
        words.append(f"ARGS=--out={chosen.out}")
    return shlex.join(words)
