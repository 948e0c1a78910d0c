"""The one Alembic environment of all services; each service keeps its own versions in `services/<name>/migrations`."""
