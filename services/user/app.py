"""The user service: registration, profile, deactivation. Run it with `python -m services.user.app`."""

from __future__ import annotations

from services.user import events
from shared.process import Service, run

SERVICE = Service(name="user", publishes=events.PUBLISHED, application="services.user.http:create_app")

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
