"""Reads the arguments of `python -m deploy` and runs the command.

Errors become one sentence on standard error and exit code 1; 78 where a setting is wrong.
"""

import argparse
import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from deploy.errors import DeployError
from deploy.native import Ports, Runtime
from deploy.native.ports import NODES
from deploy.native.site import read_state
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.render import render
from deploy.show.dead_letters import print_dead_letters
from deploy.show.jobs import print_jobs, watch_job
from deploy.show.status import print_status
from deploy.show.trace_tree import draw
from deploy.show.traces import find_in_files
from deploy.stack import choice as stack
from deploy.stack.stack import is_healthy
from deploy.topology import BROKERS, PROCESSES, SERVERS, SERVICES, USUAL_SERVERS
from shared.errors import ConfigurationError

_REFUSED = 78
"""EX_CONFIG, as a service says it."""
_ABOUT_THE_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""A directory that is another user's, read-only or full: nothing that a traceback would tell more about."""


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, _interrupt)
    # Clients log every attempt to reach a server that is still starting; what matters becomes an error of ours.
    logging.getLogger().addHandler(logging.NullHandler())
    chosen = _parser().parse_args(arguments)
    try:
        code: int = chosen.run(chosen)
    except DeployError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return 1
    except ConfigurationError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return _REFUSED
    except OSError as error:
        if error.errno not in _ABOUT_THE_PLACE:
            raise
        print(f"tandem: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        end = "`make down` again stops what is left" if chosen.run is _down else _ALL_STOPPED
        print(f"tandem: interrupted; {end}", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy", description="Run Tandem.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start everything on one broker")
    up.add_argument("broker", choices=BROKERS)
    up.add_argument("--nodes", type=int, choices=NODES, default=1, help="of how many the broker consists")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", help="stop everything")
    down.add_argument("--volumes", action="store_true", help="delete its data too")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", help="what runs and whether it answers; exit code 0 when all does")
    status.add_argument("--format", choices=("table", "json"), default="table")
    status.set_defaults(run=_status)

    logs = commands.add_parser("logs", help="follow the logs of all processes, or of one service or server")
    logs.add_argument("name", nargs="?")
    logs.add_argument("--no-follow", dest="follow", action="store_false")
    logs.add_argument("--lines", type=int, default=50)
    logs.set_defaults(run=_logs)

    trace = commands.add_parser("trace", help="the span tree of a trace, order, user or event id")
    trace.add_argument("id")
    trace.add_argument("--telemetry", type=Path, help="directory of the OTLP files, if not the stack's")
    trace.set_defaults(run=_trace)

    letters = commands.add_parser("dead-letters", help="what the dead-letter service keeps, and what waits for it")
    letters.add_argument("--limit", type=int, default=100, help="at most so many of each subscriber")
    letters.set_defaults(run=_dead_letters)

    _add_jobs(commands.add_parser)

    audit = commands.add_parser(
        "audit", help="whether the wallet's ledger is right, a line for each rule; exit code 1 when one is broken"
    )
    audit.set_defaults(run=_audit)

    rendered = commands.add_parser("render", help="write what other files tell of deploy/topology.py")
    rendered.set_defaults(run=_render)

    servers = commands.add_parser("servers", help="start servers for development and print their URLs as JSON")
    servers.add_argument("--root", type=Path, required=True, help="directory of the instance")
    servers.add_argument("--only", nargs="+", choices=SERVERS, default=list(USUAL_SERVERS))
    servers.add_argument("--databases", nargs="*", default=list(SERVICES))
    servers.set_defaults(run=_servers)

    stop = commands.add_parser("stop", help="stop the instance under a root directory")
    stop.add_argument("--root", type=Path, required=True)
    stop.add_argument("--remove", action="store_true", help="delete its data too")
    stop.set_defaults(run=_stop)
    return parser


def _add_jobs(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """What one asks about a service's jobs, and about those that the archive has."""
    jobs = add_parser("jobs", help="the newest jobs")
    jobs.add_argument("--state", help="waiting, scheduled, running, succeeded, failed or cancelled")
    jobs.add_argument("--kind")
    jobs.add_argument("--queue", help="with a step that workers take from it")
    jobs.add_argument("--since", help="submitted since this time, such as 2026-11-28T09:00:00+09:00")
    jobs.add_argument("--limit", type=int, default=30)
    _add_whose(jobs)
    jobs.set_defaults(run=_jobs)

    job = add_parser("job", help="a job with its steps, until it has ended; exit code 1 when it has failed")
    job.add_argument("id")
    _add_whose(job)
    job.set_defaults(run=_job)

    archive = add_parser("archive", help="the archived objects of a service, or the lines of one")
    archive.add_argument("key", nargs="?")
    archive.add_argument("--restore", action="store_true", help="put the rows of the object back")
    _add_whose(archive)
    archive.set_defaults(run=_archive)


def _add_whose(parser: argparse.ArgumentParser) -> None:
    having = sorted({row.service for row in PROCESSES if "worker" in row.roles.split(",")})
    parser.add_argument("--service", choices=having, default="jobs", help="whose jobs (default: jobs)")


def _up(chosen: argparse.Namespace) -> int:
    state = stack.up(chosen.broker, Steps(), chosen.nodes)
    print_status(state, "table")
    urls = {name: part["url"] for name, part in state["services"].items()}
    print(_TRY_IT.format(**urls))
    return 0 if is_healthy(state) else 1


def _down(chosen: argparse.Namespace) -> int:
    said = "stopped" if stack.down(Steps(), volumes=chosen.volumes) else "nothing was up"
    print(f"{said}; its data is deleted" if chosen.volumes else said)
    return 0


def _status(chosen: argparse.Namespace) -> int:
    state = stack.status()
    print_status(state, chosen.format)
    return 0 if is_healthy(state) else 1


def _logs(chosen: argparse.Namespace) -> int:
    try:
        return stack.require_running().print_logs(chosen.name, follow=chosen.follow, lines=chosen.lines)
    except (KeyboardInterrupt, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads any more; the flush at exit must not fail
        return 0


def _trace(chosen: argparse.Namespace) -> int:
    files, wanted = chosen.telemetry, chosen.id
    found = find_in_files(files, wanted) if files else stack.latest().traces(wanted)
    # In a pipe, lines are as long as they are: a tree that is cut off is of no use to grep.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
    for tree in draw(found):
        console.print(tree)
    return 0


def _dead_letters(chosen: argparse.Namespace) -> int:
    up = stack.require_running()
    print_dead_letters(up.service_url("dead_letter"), up.broker_settings, chosen.limit)
    return 0


def _jobs(chosen: argparse.Namespace) -> int:
    filters = {name: getattr(chosen, name) for name in ("state", "kind", "queue", "since")}
    print_jobs(stack.require_running().service_url(chosen.service), filters, chosen.limit)
    return 0


def _job(chosen: argparse.Namespace) -> int:
    try:
        return watch_job(stack.require_running().service_url(chosen.service), chosen.id)
    except KeyboardInterrupt:
        return 0  # who has seen enough; the job goes on


def _audit(_chosen: argparse.Namespace) -> int:
    return stack.require_running().run_module("wallet", "services.wallet.app", "audit")


def _archive(chosen: argparse.Namespace) -> int:
    words = [*([chosen.key] if chosen.key else []), *(["--restore"] if chosen.restore else [])]
    return stack.require_running().run_module(chosen.service, "shared.jobs.archive", *words)


def _render(_chosen: argparse.Namespace) -> int:
    for place in render():
        print(f"written: {place.relative_to(REPOSITORY)}")
    return 0


def _servers(chosen: argparse.Namespace) -> int:
    state = read_state(chosen.root.resolve())
    ports = Ports.from_dict(state["ports"]) if state else Ports.free_block()
    runtime = Runtime(chosen.root, ports, servers=chosen.only, watch_parent=False)
    if not runtime.running:
        runtime.start_servers()
    databases = {}
    if "postgres" in chosen.only:
        runtime.ensure_databases(chosen.databases)
        databases = {name: runtime.dsn(name) for name in chosen.databases}
    print(json.dumps({**runtime.server_urls(), "databases": databases}))
    return 0


def _stop(chosen: argparse.Namespace) -> int:
    Runtime.attach(chosen.root).stop(remove=chosen.remove)
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # A polite kill takes the same way out as Ctrl-C: what was started is stopped. Whoever asks again must not cut
    # that short; every wait in it has its limit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _say_patience)
    raise KeyboardInterrupt


def _say_patience(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"tandem: still stopping\n")  # not print: the signal may have come in the middle of one


_ALL_STOPPED = "what this command had started is stopped"


_TRY_IT = """
Try it (paste these lines):
  trace=$(python3 -c 'import secrets; print(secrets.token_hex(16))')  # one W3C trace for all that follows
  head="-H content-type:application/json -H traceparent:00-$trace-00000000000000a1-01"
  post() {{ curl -sf --retry 9 --retry-all-errors $head -d "$1" "$2"; }}
  read_id() {{ python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'; }}
  user=$(post '{{"email": "ada'$RANDOM'@example.org", "name": "Ada"}}' {user}/users | read_id)
  lines='[{{"sku": "tea", "quantity": 2, "unit_amount": 450}}]'
  order=$(post '{{"user_id": "'$user'", "currency": "EUR", "lines": '"$lines"'}}' {order}/orders | read_id)
  post '{{}}' {order}/orders/$order/pay; echo; sleep 1
  curl -s "{notification}/notifications?order_id=$order"; echo; make trace ID=$order

make status · make logs S=order · make dead-letters · make down
"""
