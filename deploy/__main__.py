"""The command line: `python -m deploy up|down|status|logs|trace|dead-letters|jobs|job|servers|stop`."""

import sys

from deploy.command_line import main

sys.exit(main(sys.argv[1:]))
