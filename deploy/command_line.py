"""Reads the arguments of `python -m deploy` and runs the command; errors become one sentence and exit code 1."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from deploy.errors import DeployError
from deploy.native import Ports, Runtime
from deploy.native.site import read_state
from deploy.topology import SERVERS


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    chosen = _parser().parse_args(arguments)
    try:
        code: int = chosen.run(chosen)
    except DeployError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tandem: interrupted, everything that was started has been stopped", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy", description="Run Tandem.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    servers = commands.add_parser(
        "servers", help="start servers for development and print their URLs as JSON"
    )
    servers.add_argument("--root", type=Path, required=True, help="directory of the instance")
    servers.add_argument("--only", nargs="+", choices=SERVERS, default=list(SERVERS))
    servers.add_argument("--databases", nargs="*", default=["user", "order", "notification"])
    servers.set_defaults(run=_servers)

    stop = commands.add_parser("stop", help="stop the instance under a root directory")
    stop.add_argument("--root", type=Path, required=True)
    stop.add_argument("--remove", action="store_true", help="delete its data too")
    stop.set_defaults(run=_stop)
    return parser


def _servers(chosen: argparse.Namespace) -> int:
    state = read_state(chosen.root.resolve())
    ports = Ports.from_dict(state["ports"]) if state else Ports.free_block()
    runtime = Runtime(chosen.root, ports, servers=chosen.only, watch_parent=False)
    if not runtime.running:
        runtime.start_servers()
    runtime.ensure_databases(chosen.databases)
    print(
        json.dumps(
            {**runtime.server_urls(), "databases": {name: runtime.dsn(name) for name in chosen.databases}}
        )
    )
    return 0


def _stop(chosen: argparse.Namespace) -> int:
    Runtime.attach(chosen.root).stop(remove=chosen.remove)
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # A polite kill takes the same way out as Ctrl-C: what was started is stopped.
    raise KeyboardInterrupt
