"""Tells a process from a later one that was given its number, whatever happens to the clock meanwhile."""

from pathlib import Path


def start_ticks(pid: int) -> int | None:
    """When a living process started, in clock ticks since the machine did; None: there is none.

    A time of day would not do: a clock that is set, or a virtual machine that is stopped and goes on, moves it.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, ticks = after_name[0], int(after_name[19])
    return None if state in {"Z", "X"} else ticks
