"""What processes of the tests have imported when `deploy.supervisord.become` makes services of them."""

from __future__ import annotations

from deploy.native.service_set import imported_on
from deploy.topology import BROKERS

PRELOADED = tuple(dict.fromkeys(module for broker in BROKERS for module in imported_on(broker)))
"""What services import on either broker. What is missing costs time only: the process imports it itself."""
