"""What every HTTP API has: problem documents, checked bodies, pages, idempotency keys."""
