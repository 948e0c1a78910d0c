"""Children: worker processes for steps that compute or block, one step at a time in each.

`children` is the pool, on the parent's event loop. `fork_server` is a process between: it has imported what steps
need, forks the children, reaps them, and ends with its parent, taking them along. `child` is what runs in each.
"""

from shared.children.child import Report, describe
from shared.children.children import Call, Children, Limits
from shared.children.outcomes import ChildLost, Failed, Progress

__all__ = [
    "Call",
    "ChildLost",
    "Children",
    "Failed",
    "Limits",
    "Progress",
    "Report",
    "describe",
]
