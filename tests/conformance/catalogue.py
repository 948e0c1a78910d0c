"""All checks, by the broker that they apply to."""

from __future__ import annotations

import inspect
from types import ModuleType

from deploy.native import BrokerName
from tests.conformance import (
    checks_dead_letters,
    checks_delivery,
    checks_memory,
    checks_outage,
    checks_preparing,
    checks_publishing,
    checks_recovery,
    checks_replies,
    checks_rights,
    checks_settlement,
    checks_topology,
    checks_transactions,
)
from tests.conformance.harness import Check

_MODULES: tuple[ModuleType, ...] = (
    checks_publishing,
    checks_delivery,
    checks_settlement,
    checks_preparing,
    checks_dead_letters,
    checks_topology,
    checks_memory,
    checks_transactions,
    checks_replies,
    checks_recovery,
    checks_rights,
    checks_outage,
)


def checks_for(system: BrokerName) -> list[Check]:
    """In the order of the files, cheap ones first."""
    return [
        check
        for module in _MODULES
        for name, check in inspect.getmembers(module, inspect.iscoroutinefunction)
        if name.startswith("check_") and applies_to(system, check)
    ]


def applies_to(system: BrokerName, check: Check) -> bool:
    """Whether the broker has what the check is about."""
    return getattr(check, "only_on", system) == system


def claim_of(check: Check) -> str:
    """The check's claim in words."""
    return getattr(check, "__name__", "").removeprefix("check_").replace("_", " ")
