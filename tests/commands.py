"""How tests run a command of ours that starts servers."""

from __future__ import annotations

import sys

PYTHON = ("setpriv", "--pdeathsig", "TERM", "--", sys.executable)
"""This Python, told to end in good order should the test's own process be killed."""
