"""Ends an instance when the process that wanted it has gone: a crashed test run leaves no servers behind.

python -m deploy.watch PARENT_PID PARENT_START_TICKS SUPERVISORD_PID
"""

import signal
import sys
import time

import psutil

from deploy.birth import start_ticks

_POLL_S = 0.5


def main(arguments: list[str]) -> int:
    """Wait for the parent's end, then ask supervisord to shut down. Exit code 0."""
    parent, born, supervisord = map(int, arguments)
    while start_ticks(parent) == born:
        time.sleep(_POLL_S)
    try:
        psutil.Process(supervisord).send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return 0
    time.sleep(60)  # supervisord ends this process with the others; leaving earlier would get it restarted
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
