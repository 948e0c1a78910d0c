"""What a person looks at: traces, dead letters, logs."""

__all__ = [
    "dead_letters",
    "jobs",
    "log_follow",
    "status",
    "trace_tree",
    "traces",
]
