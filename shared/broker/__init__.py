"""The seam between services and brokers: `base` is the contract, `rabbit` and `kafka` are its adapters."""

from shared.broker.base import (
    BODY_BYTES_MAX,
    DEATH,
    DEATHS,
    HEADERS_BYTES_MAX,
    BatchHandler,
    Broker,
    DeadLetter,
    DeadLetterChannel,
    Delivery,
    Inspector,
    Message,
    Operation,
    Publisher,
    PublishFailure,
    QueueState,
    Settlement,
    Subscription,
    Trouble,
    destination_name,
)
from shared.broker.batches import isolating
from shared.broker.connect import create_broker
from shared.broker.unreadable import UNREADABLE

__all__ = [
    "BODY_BYTES_MAX",
    "DEATH",
    "DEATHS",
    "HEADERS_BYTES_MAX",
    "UNREADABLE",
    "BatchHandler",
    "Broker",
    "DeadLetter",
    "DeadLetterChannel",
    "Delivery",
    "Inspector",
    "Message",
    "Operation",
    "PublishFailure",
    "Publisher",
    "QueueState",
    "Settlement",
    "Subscription",
    "Trouble",
    "create_broker",
    "destination_name",
    "isolating",
    "kafka",
    "rabbit",
]
