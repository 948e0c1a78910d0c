"""Ends an instance when the process that wanted it has gone: a crashed test run leaves no servers behind.

python -m deploy.watch PARENT_PID PARENT_CREATE_TIME SUPERVISORD_PID
"""

import signal
import sys
import time

import psutil

_POLL_S = 0.5


def main(arguments: list[str]) -> int:
    """Wait for the parent's end, then ask supervisord to shut down. Exit code 0."""
    parent, born, supervisord = int(arguments[0]), float(arguments[1]), int(arguments[2])
    while _lives(parent, born):
        time.sleep(_POLL_S)
    try:
        psutil.Process(supervisord).send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return 0
    time.sleep(60)  # supervisord ends this process with the others; leaving earlier would get it restarted
    return 0


def _lives(pid: int, born: float) -> bool:
    # The start time tells the parent from a later process that got its number.
    try:
        process = psutil.Process(pid)
        return process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
