"""The contenders: each a process that drains one backlog until it is told to stop (SIGTERM)."""

__all__ = [
    "by_hand",
    "celery_app",
    "celery_jobs",
    "celery_transfers",
    "tandem_steps",
]
