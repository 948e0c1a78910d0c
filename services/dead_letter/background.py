"""What the dead-letter service does all the time: keep letters, give them back, count and forget them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial

import structlog

from services.dead_letter import events, handlers
from shared.broker import BatchHandler, Delivery, Subscription, isolating
from shared.errors import ConfigurationError, TransientError
from shared.outside.alerts import Alerts
from shared.outside.mail import Mailer
from shared.process import Parts, until_available
from shared.telemetry import Gauges, Sample, queues_of

_log = structlog.get_logger(__name__)

GROUP = "dead_letter"
ALERT = "dead_letter.alert"
_AWAY_S = 5.0
_FORGET_INTERVAL_S = 3_600.0


async def keep_and_give_back(parts: Parts) -> None:
    """Keep dead letters and give them back, with the same alerts for both.

    Raises `ConfigurationError` when no subscription is named.
    """
    if not parts.settings.dead_letter_subscriptions:
        raise ConfigurationError("TANDEM_DEAD_LETTER_SUBSCRIPTIONS must name at least one subscription")
    mailer = Mailer(parts.settings, parts.circuit_breakers.named("smtp")) if parts.settings.alert_mail_to else None
    alerts = Alerts(parts.settings, mailer)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(alerts.deliver())
        tasks.create_task(keep(parts, alerts))
        tasks.create_task(give_back(parts, alerts))


async def keep(parts: Parts, alerts: Alerts) -> None:
    """Consume the dead-letter queue or topic of every subscription that is named."""
    async with asyncio.TaskGroup() as subscribing:
        for place in events.places(parts.settings):
            handler = letter_handler(parts, place, alerts)
            subscribe = partial(parts.broker.subscribe_dead_letters, place, GROUP, handler)
            subscribing.create_task(until_available(subscribe))


def letter_handler(parts: Parts, place: Subscription, alerts: Alerts) -> BatchHandler:
    """What keeps the dead letters of `place`: a batch in one transaction, or, when that fails, one by one."""
    settings, policy = parts.settings, handlers.policy_of(parts.settings)

    async def keep_received(received: Sequence[events.Received]) -> None:
        async with parts.units.begin() as uow:
            alarms = await handlers.receive(uow, received, policy, settings.alert_interval_s)
        _raise(alerts, alarms)

    async def keep_all(deliveries: Sequence[Delivery]) -> None:
        try:
            await keep_received([events.read(place, delivery) for delivery in deliveries])
        except TransientError:
            raise
        except Exception:
            if len(deliveries) > 1:
                raise
            # It would come for ever, and on Kafka nothing behind it would be kept.
            _log.exception("dead_letter.kept_in_part", position=deliveries[0].position)
            await keep_received([events.unstorable(place, deliveries[0])])

    return isolating(keep_all)


def _raise(alerts: Alerts, alarms: Sequence[handlers.Alarm]) -> None:
    for alarm in alarms:
        alerts.send(ALERT, alarm)


async def give_back(parts: Parts, alerts: Alerts) -> None:
    """Give back what is due and what is asked for, as long as the process runs."""
    settings, policy = parts.settings, handlers.policy_of(parts.settings)
    quiet_s = settings.alert_interval_s
    publish = handlers.way_back(parts.broker, settings.dead_letter_subscriptions)
    failed_ones_at = time.monotonic()
    while True:
        try:
            delayed_only = time.monotonic() < failed_ones_at
            async with parts.units.begin() as uow:
                asked = await handlers.give_back_asked(uow, publish, policy, quiet_s)
            _raise(alerts, asked.alarms)
            async with parts.units.begin() as uow:
                due = await handlers.give_back_due(uow, publish, policy, quiet_s, delayed_only=delayed_only)
            _raise(alerts, due.alarms)
            if not due.more and not delayed_only:
                failed_ones_at = time.monotonic() + settings.redrive_interval_s
        except TransientError as error:
            _log.warning("dead_letter.waiting", error=str(error))
            await asyncio.sleep(_AWAY_S)
        else:
            await asyncio.sleep(0 if asked.more or due.more else settings.redrive_poll_interval_s)


async def measure(parts: Parts) -> None:
    """Report how many letters there are, and how every subscriber's queue and dead letters stand.

    A subscriber that has stopped cannot report its own.
    """

    async def count() -> list[Sample]:
        async with parts.units.begin() as uow:
            return await handlers.count_letters(uow)

    places = queues_of(parts.broker, parts.settings.broker, events.places(parts.settings), dead_letter_group=GROUP)
    await Gauges(parts.settings, parts.telemetry.metrics.measurements, {"dead_letters": count, **places}).run()


async def forget(parts: Parts) -> None:
    """Delete, in portions, the letters that were resolved or discarded long ago, once an hour."""
    while True:
        forgotten = 0
        with contextlib.suppress(TransientError):
            async with parts.units.begin() as uow:
                forgotten = await handlers.forget_old(uow, parts.settings.dead_letter_ttl_s)
        await asyncio.sleep(0 if forgotten else _FORGET_INTERVAL_S)
