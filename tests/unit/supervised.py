"""A program that adds a line to a file, how it came to be, and stays until it is told to end."""

import json
import os
import signal
import sys
from pathlib import Path

with Path(sys.argv[1]).open("a", encoding="utf-8") as _told:
    _told.write(
        json.dumps({"forked": "supervisor" in sys.modules, "pid": os.getpid(), "said": os.environ["SAID"]}) + "\n"
    )
signal.pause()
