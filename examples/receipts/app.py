"""A whole service: for every paid order it writes a receipt and publishes that the receipt is issued."""

from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity, MetaData, Table, Uuid, insert

from shared.consuming import Handler, Subscriber
from shared.event import Event, EventData
from shared.process import Service, run
from shared.publishing import UnitOfWork

receipt = Table(
    "receipt", MetaData(),
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("order_id", Uuid, nullable=False),
    Column("amount", BigInteger, nullable=False),
)  # fmt: skip
INSERT_RECEIPT = insert(receipt)


class OrderPaid(EventData):  # what this service reads of another's event
    channel, event_type = "order", "order.paid"
    order_id: UUID
    total_amount: int


class ReceiptIssued(EventData):  # its own event
    channel, event_type = "receipt", "receipt.issued"
    order_id: UUID
    amount: int


# readme: from here
async def on_order_paid(event: Event[OrderPaid], uow: UnitOfWork) -> None:
    order_id, amount = event.data.order_id, event.data.total_amount
    uow.tell(INSERT_RECEIPT, {"order_id": order_id, "amount": amount})
    uow.publish(ReceiptIssued(order_id=order_id, amount=amount), subject=str(order_id))


PAID_ORDERS = Subscriber(
    channel="order",
    name="receipts",
    handlers=(Handler(OrderPaid, on_order_paid),),
    ignores=frozenset({"order.placed", "order.cancelled"}),
)
SERVICE = Service(name="receipts", publishes=(ReceiptIssued,), subscribers=(PAID_ORDERS,))
# readme: to here

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
