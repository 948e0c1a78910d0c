"""One notification per event, the list of them, one mail per event where mail is sent, and the archive."""

from __future__ import annotations

import asyncio
from functools import singledispatch
from typing import TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from services.notification import domain, store
from services.notification.domain import Text
from services.notification.events import (
    DistributionClosed,
    NotificationStepReady,
    OrderCancelled,
    OrderEvent,
    OrderPaid,
    OrderPlaced,
    TransferCancelled,
    TransferCompleted,
    TransferEvent,
    TransferFailed,
    TransferReceived,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserRegistered,
)
from services.notification.store import Notification, Recipient
from shared.consuming import EventHandler, Handler, Subscriber
from shared.errors import TransientError
from shared.event import Event
from shared.jobs import Jobs
from shared.jobs.archive import HISTORY, Archive, Source
from shared.jobs.schedules import Schedules
from shared.outside.mail import Mail, Mailer, MailRefusedError, message_id
from shared.publishing import UnitOfWork
from shared.settings import Settings

NAME = "notification"
MAIL = "mail"
_MAILS_AT_ONCE = 3  # of each subscription; each holds a connection to the database while its mail is sent
_ADDRESS_LOOKS_MAX = 10
_ADDRESS_WAIT_S = 0.2

DataT = TypeVar("DataT", bound=OrderEvent | TransferEvent | DistributionClosed | UserEvent)


async def list_notifications(
    uow: UnitOfWork, user_id: UUID | None, order_id: UUID | None, before: int | None, page_size: int
) -> list[Notification]:
    """A user's or an order's notifications, newest first; none where nothing is known."""
    return await store.list_notifications(uow.reads, user_id, order_id, before, page_size)


# -- what an event says


@singledispatch
def text_of(data: OrderEvent | TransferEvent | DistributionClosed | UserEvent) -> Text:
    raise NotImplementedError(f"nothing is told about {data.event_type}")


@text_of.register
def _(data: OrderPlaced) -> Text:
    return domain.order_placed(data.order_id, data.total_amount, data.currency)


@text_of.register
def _(data: OrderPaid) -> Text:
    return domain.order_paid(data.order_id, data.total_amount, data.currency)


@text_of.register
def _(data: OrderCancelled) -> Text:
    return domain.order_cancelled(data.order_id, data.total_amount, data.currency)


@text_of.register
def _(data: UserRegistered) -> Text:
    return domain.user_registered(data.name)


@text_of.register
def _(data: UserProfileUpdated) -> Text:
    return domain.user_profile_updated(data.name)


@text_of.register
def _(data: UserDeactivated) -> Text:
    return domain.user_deactivated(data.name)


@text_of.register
def _(data: TransferCompleted) -> Text:
    return domain.transfer_completed(data.sender_id, data.receiver_id, data.amount, data.fee, data.currency)


@text_of.register
def _(data: TransferReceived) -> Text:
    return domain.transfer_received(data.sender_id, data.receiver_id, data.amount, data.currency)


@text_of.register
def _(data: TransferFailed) -> Text:
    return domain.transfer_failed(data.receiver_id, data.amount, data.currency, data.reason)


@text_of.register
def _(data: TransferCancelled) -> Text:
    return domain.transfer_cancelled(data.receiver_id, data.amount, data.currency)


@text_of.register
def _(data: DistributionClosed) -> Text:
    return domain.distribution_closed(data.amount, data.given_back, data.currency)


# -- notifications


async def on_order_event(event: Event[OrderEvent], uow: UnitOfWork) -> None:
    _notify(event, uow)


async def on_transfer_event(event: Event[TransferEvent | DistributionClosed], uow: UnitOfWork) -> None:
    _notify(event, uow)


async def on_user_event(event: Event[UserEvent], uow: UnitOfWork) -> None:
    """Notify the user, and keep the address.

    It is kept whether mail is sent or not, so that it is known when it is.
    """
    data = event.data
    _notify(event, uow)
    if data.email is not None:
        row = {"user_id": data.user_id, "email": data.email, "name": data.name, "version": data.version}
        uow.tell(store.RECORD_RECIPIENT, row)


def _notify(event: Event[DataT], uow: UnitOfWork) -> None:
    data, text = event.data, text_of(event.data)
    uow.tell(
        store.INSERT_NOTIFICATION,
        {
            "id": uuid7(),
            "event_source": event.envelope.source,
            "event_id": event.id,
            "event_type": data.event_type,
            "user_id": data.user_id,
            "order_id": data.order_id if isinstance(data, OrderEvent) else None,
            "version": data.version,
            "title": text.title,
            "body": text.body,
        },
    )


SUBSCRIBERS = (
    Subscriber(
        channel="user",
        name=NAME,
        handlers=tuple(
            Handler(model, on_user_event) for model in (UserRegistered, UserProfileUpdated, UserDeactivated)
        ),
    ),
    Subscriber(
        channel="order",
        name=NAME,
        handlers=tuple(Handler(model, on_order_event) for model in (OrderPlaced, OrderPaid, OrderCancelled)),
    ),
    Subscriber(
        channel="transfer",
        name=NAME,
        handlers=tuple(
            Handler(model, on_transfer_event)
            for model in (
                TransferCompleted,
                TransferReceived,
                TransferFailed,
                TransferCancelled,
                DistributionClosed,
            )
        ),
        ignores=frozenset({"transfer.requested"}),
    ),
)


# -- mail


class Mails:
    """The handlers of the subscriber `mail`, which send one mail per event.

    The inbox row is the only trace of a mail in the database.
    """

    def __init__(self, mailer: Mailer) -> None:
        # Only where mail is sent: it is no small import for every consumer.
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

        self._mailer = mailer
        self._templates = Environment(
            loader=PackageLoader("services.notification"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
        )

    async def on_event(
        self, event: Event[OrderEvent | TransferEvent | DistributionClosed], uow: UnitOfWork
    ) -> None:
        """Mail the event's user, whose address another channel brings, at the same time or a little later.

        Raises `TransientError` when nothing is heard of the user: no channel waits for another for long.
        """
        user_id = event.data.user_id
        looks = 0
        while (recipient := await store.find_recipient(uow.connection, user_id)) is None:
            looks += 1
            if looks >= _ADDRESS_LOOKS_MAX:
                raise TransientError(f"the address of user {user_id} is not known, or not yet")
            await asyncio.sleep(_ADDRESS_WAIT_S)
        await self._send(event, recipient)

    async def on_user_event(self, event: Event[UserEvent], _uow: UnitOfWork) -> None:
        if event.data.email is None:
            raise MailRefusedError(f"the event of user {event.data.user_id} names no address")
        await self._send(event, Recipient(event.data.email, event.data.name))

    async def _send(self, event: Event[DataT], recipient: Recipient) -> None:
        text = text_of(event.data)
        words = {"title": text.title, "body": text.body, "name": recipient.name, "reference": event.id}
        await self._mailer.send(
            Mail(
                message_id=message_id(event.envelope, self._mailer.sender),
                address=recipient.email,
                name=recipient.name,
                subject=text.title,
                text=self._templates.get_template("mail.txt").render(words),
                html=self._templates.get_template("mail.html").render(words),
            )
        )


def mail_subscribers(mailer: Mailer) -> tuple[Subscriber, ...]:
    """The subscriber `mail`: the same events as `notification`, each sent by itself."""
    mails = Mails(mailer)
    handle: dict[str, EventHandler] = {
        "user": mails.on_user_event,
        "order": mails.on_event,
        "transfer": mails.on_event,
    }
    return tuple(
        Subscriber(
            channel=notification.channel,
            name=MAIL,
            handlers=tuple(Handler(h.model, handle[notification.channel]) for h in notification.handlers),
            ignores=notification.ignores,
            outside_effects=True,
            concurrency=_MAILS_AT_ONCE,
        )
        for notification in SUBSCRIBERS
    )


# -- the archive

ARCHIVE = Archive(NAME, Source("notifications", store.read_old, store.RECORD_ARCHIVED), HISTORY)
JOBS = Jobs(NotificationStepReady, archive=ARCHIVE)


def schedules(settings: Settings) -> Schedules:
    """All schedules of this service: each process has its own."""
    return Schedules(*ARCHIVE.schedules(settings))
