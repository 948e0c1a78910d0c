"""The command line: `python -m compare`."""

import sys

from compare.command_line import main
from experiment.signals import raise_on_first_signal

raise_on_first_signal()
sys.exit(main(sys.argv[1:]))
