"""What compare, faults and bench have in common: servers, load, the ledger of what was asked, the check."""

__all__ = [
    "atomic_directory",
    "broker_state",
    "checker",
    "clock",
    "effects",
    "facts",
    "figures",
    "instance",
    "ledger",
    "load",
    "profiles",
    "progress_bar",
    "schedule",
    "side",
    "signals",
    "stamping",
    "stamps",
    "usage",
    "workload",
]
