"""What compare, faults and bench log of themselves."""

import subprocess
import sys

_PROGRAM = """
import structlog
from experiment.logs import log_errors_alone

log_errors_alone()
log = structlog.get_logger()
log.warning("repeated")
note = "of-a-customer".upper()
try:
    raise ValueError("unreadable")
except ValueError:
    log.exception("delivery_failed", channel="order")
"""


def test_a_tool_logs_errors_beside_what_it_prints_and_without_what_variables_held() -> None:
    told = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)

    assert told.stdout == ""
    assert "event='delivery_failed' channel='order'" in told.stderr
    assert "ValueError: unreadable" in told.stderr
    assert "OF-A-CUSTOMER" not in told.stderr
    assert "repeated" not in told.stderr
