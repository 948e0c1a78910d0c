"""What the wallet consumes: users, and its own requests for transfers."""

from __future__ import annotations

from typing import Final

from services.wallet.events import (
    ShareAsked,
    TransferRequested,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserRegistered,
)
from services.wallet.handlers.execution import lock_batch, on_transfer_requested, waiting_first
from services.wallet.handlers.taking import lock_asked, on_share_asked
from services.wallet.store import accounts as account_rows
from shared.consuming import Handler, Subscriber
from shared.event import Event
from shared.publishing import UnitOfWork
from shared.reply import Responder

NAME: Final = "wallet"
_NOT_TO_DO: Final = frozenset(
    {"transfer.completed", "transfer.received", "transfer.failed", "transfer.cancelled", "distribution.closed"}
)
_WAITING_AT_ONCE: Final = 5  # each holds a connection to the database while it waits; half are left for others


async def on_user_event(event: Event[UserEvent], uow: UnitOfWork) -> None:
    """Know the user; one who is deactivated sends nothing any more."""
    user = event.data
    row = {"user_id": user.user_id, "active": not isinstance(user, UserDeactivated), "version": user.version}
    uow.tell(account_rows.RECORD_MEMBER, row)


SUBSCRIBERS = (
    Subscriber(
        channel="user",
        name=NAME,
        handlers=tuple(
            Handler(model, on_user_event) for model in (UserRegistered, UserProfileUpdated, UserDeactivated)
        ),
    ),
)


def transfer_subscriber(delay_s: float) -> Subscriber:
    """Who executes transfers, in the order in which each sender asked for them.

    Without a delay by the batch; with one each in a transaction of its own, which begins so many seconds before.
    """
    if delay_s:
        return Subscriber(
            channel="transfer",
            name=NAME,
            handlers=(Handler(TransferRequested, waiting_first(delay_s)),),
            ignores=_NOT_TO_DO,
            outside_effects=True,
            concurrency=_WAITING_AT_ONCE,
        )
    return Subscriber(
        channel="transfer",
        name=NAME,
        handlers=(Handler(TransferRequested, on_transfer_requested),),
        ignores=_NOT_TO_DO,
        prepare=lock_batch,
    )


def share_subscriber(responder: Responder) -> Subscriber:
    """Who decides what those receive who ask for a share, by the batch, and answers."""
    return Subscriber(
        channel="share",
        name=NAME,
        handlers=(Handler(ShareAsked, responder.answering(on_share_asked)),),
        prepare=lock_asked,
        put_aside=responder.put_aside,
        answers=True,
    )
