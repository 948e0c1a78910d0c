"""The dead-letter service: keeps what subscribers could not take and gives it back.

Run it with `python -m services.dead_letter.app`.
"""

from __future__ import annotations

from services.dead_letter import background
from shared.process import Service, run

SERVICE = Service(
    name="dead_letter",
    background_tasks=(background.keep_and_give_back, background.measure, background.forget),
    application="services.dead_letter.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
