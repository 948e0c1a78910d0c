"""The command line: `python -m bench`."""

import sys

from bench.command_line import main
from experiment.signals import raise_on_first_signal

raise_on_first_signal()
sys.exit(main(sys.argv[1:]))
