"""The notification service: tells users what happened. Run it with `python -m services.notification.app`."""

from __future__ import annotations

from services.notification import handlers
from shared.consuming.subscriber import Subscriber
from shared.outside.mail import Mailer
from shared.process.process import Process, Service, run


def mail_subscribers(process: Process) -> tuple[Subscriber, ...]:
    """The subscriber `mail`; without an SMTP server none, and no queue."""
    if not process.settings.smtp_url:
        return ()
    return handlers.mail_subscribers(Mailer(process.settings, process.circuit_breaker("smtp")))


SERVICE = Service(
    name="notification",
    subscribers=handlers.SUBSCRIBERS,
    more_subscribers=mail_subscribers,
    application="services.notification.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
