"""The command line: `python -m faults`."""

import sys

from experiment.signals import raise_on_first_signal
from faults.command_line import main

raise_on_first_signal()
sys.exit(main(sys.argv[1:]))
