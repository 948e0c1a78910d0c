"""The smallest workload that makes every figure of a comparison."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "rounds": 1,
    "users": 4,
    "quiet_s": 0.2,
    "warm_up": {"steady_s": 1, "steady_s_max": 1, "backlog_events": 100},
    "steady": {"duration_s": 2, "orders_per_s": 10, "follow_up_after_s": 0.2, "profile_updates_per_s": 5},
    "backlog": {"events": 600},
    "layers": {"events": 100, "rounds": 1, "modes": False},
}
