"""Prints what runs and whether it answers."""

import json
import os
import re
from typing import Any

from rich.console import Console
from rich.table import Table


def print_status(status: dict[str, Any], form: str) -> None:
    """Print a status (deploy.stack.stack.Status) to standard output: `json`, or a table."""
    if form == "json":
        print(json.dumps(status, indent=2))
        return
    console = Console(width=None if os.isatty(1) else 120)
    if status["broker"] is None:
        console.print("nothing is up; `make up-rabbit` or `make up-kafka` starts everything")
        return
    table = Table(title=f"Tandem on {status['broker']} ({status['runtime']})", title_justify="left")
    for column in ("", "url", "pids", "healthy"):
        table.add_column(column)
    for name, part in [*status["services"].items(), *status["servers"].items()]:
        pids = [str(pid) for pid in part["pids"]]
        shown = " ".join(pids[:3]) + (" …" if len(pids) > 3 else "")
        url = re.sub(r"//[^/@]*@", "//", part["url"])  # passwords are for FORMAT=json
        table.add_row(name, url, shown, "[green]yes[/green]" if part["healthy"] else "[red]no[/red]")
    console.print(table)
    if "mails" in status:
        console.print(f"mails are in {status['mails']}", soft_wrap=True)
