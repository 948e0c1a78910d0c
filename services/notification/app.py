"""The notification service: tells users what happened. Run it with `python -m services.notification.app`."""

from __future__ import annotations

from services.notification import background, handlers
from shared.consuming import Subscriber
from shared.outside.mail import Mailer
from shared.process import Parts, Service, run


def mail_subscribers(parts: Parts) -> tuple[Subscriber, ...]:
    """The subscriber `mail`; without an SMTP server none, and no queue."""
    if not parts.settings.smtp_url:
        return ()
    return handlers.mail_subscribers(Mailer(parts.settings, parts.circuit_breakers.named("smtp")))


SERVICE = Service(
    name="notification",
    subscribers=handlers.SUBSCRIBERS,
    more_subscribers=mail_subscribers,
    background_tasks=(background.keep_firing, background.keep_jobs),
    workers=(handlers.JOBS.work,),
    jobs=handlers.JOBS,
    application="services.notification.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
