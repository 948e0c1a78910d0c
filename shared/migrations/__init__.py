"""The one Alembic environment of all services; the versions are in `services/<name>/migrations`."""
