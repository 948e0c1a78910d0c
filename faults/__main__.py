"""Entry point of `python -m faults`."""

import sys

from faults.command_line import main

sys.exit(main(sys.argv[1:]))
