"""Sees before a run that what it will create on a broker of one's own can be deleted again, and deletes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from deploy.native.site import read_state
from deploy.topology import BrokerName
from experiment.clock import until
from experiment.instance import leftovers
from experiment.own_brokers import on_kafka, on_rabbit
from experiment.own_brokers.names import TRIED
from experiment.own_brokers.told import OwnBroker, OwnBrokerError, OwnBrokers, told_to_services
from experiment.signals import ignore_signals, run_until_signal
from shared.broker import Message, create_broker
from shared.errors import TandemError

_NAME = "tandem-trial"
_KINDS: Mapping[BrokerName, tuple[ModuleType, str, str]] = {
    "rabbit": (on_rabbit, "RabbitMQ", "exchanges and queues"),
    "kafka": (on_kafka, "Kafka", "topics and groups"),
}
_DELETE_TIMEOUT_S = 90.0
_ARRIVE_S = 10.0
_POLL_S = 0.2


@contextmanager
def guarded(own: OwnBrokers, say: Callable[[str], None]) -> Iterator[list[str]]:
    """Say what will be created and deleted, try it, and delete all of it when the block is left, however that is.

    Raises `OwnBrokerError` before the block where it cannot be done; nothing is left then. What could not be
    deleted in the end is said, and is in the list.
    """
    used: list[OwnBroker] = []
    left: list[str] = []
    for each in own:
        _, title, what = _KINDS[each.broker]
        say(f"on {title} at {each.where} it will create and delete {what}, all of which begin with {each.prefix}")
    try:
        for each in own:
            run_until_signal(_try(each, used))
        yield left
    finally:
        if used:
            ignore_signals()  # what is left on somebody's broker stays there
        for each in used:
            _, title, what = _KINDS[each.broker]
            try:
                asyncio.run(_delete_all(each))
            except Exception as error:  # noqa: BLE001  whatever it is: the other broker is looked after, too
                left.append(f"{what} on {title} at {each.where} whose names begin with {each.prefix}: {error}")
        for sentence in left:
            say(f"NOT deleted: {sentence}")


def delete_leftovers(run_root: Path, name: str, say: Callable[[str], None]) -> None:
    """Delete what runs of the tool `name` left on brokers of one's own because they were killed, with all of their
    services. To be done while the data of those runs is there."""
    for place in leftovers(run_root, name):
        for row in read_state(place).get("sets", {}).values():
            found = told_to_services(row["broker"], row["environment"])
            if found is None:
                continue
            _, title, what = _KINDS[found.broker]
            about = f"{what} that a killed run left on {title} at {found.where}, beginning with {found.prefix}"
            try:
                run_until_signal(_delete_all(found))
            except OwnBrokerError as error:
                say(f"NOT deleted: {about}: {error}")
            else:
                say(f"deleted: {about}")


def versions_of(own: OwnBrokers) -> dict[BrokerName, str]:
    """What each says that it is. Raises `OwnBrokerError`."""
    return {each.broker: run_until_signal(_KINDS[each.broker][0].version(each)) for each in own}


async def _try(own: OwnBroker, used: list[OwnBroker]) -> None:
    """Create, use and delete a channel with a subscription; from the first creation on, `own` is among `used`."""
    kind, title, _ = _KINDS[own.broker]
    try:
        async with create_broker(own.settings, _NAME) as broker:
            await kind.require_unused(own)
            await kind.require_deletable(own)
            used.append(own)
            await broker.declare([TRIED.channel], [TRIED])
            [event_type] = TRIED.types
            for failure in await broker.publish([Message(TRIED.channel, event_type, "key", b"{}")]):
                raise failure.error

            async def counted() -> bool:
                return sum(state.messages for state in await broker.queue_states([TRIED])) > 0

            if not await until(counted, _ARRIVE_S, _POLL_S):
                raise OwnBrokerError(f"{title} at {own.where} does not have what was published to it")
    except TandemError as error:
        raise OwnBrokerError(f"{title} at {own.where} cannot be used: {error}") from error
    await _delete_all(own)


async def _delete_all(own: OwnBroker) -> None:
    """Raises `OwnBrokerError`."""
    try:
        async with asyncio.timeout(_DELETE_TIMEOUT_S):
            await _KINDS[own.broker][0].delete_all(own)
    except TimeoutError:
        raise OwnBrokerError(f"it was not done within {_DELETE_TIMEOUT_S:g} s") from None
    except TandemError as error:
        raise OwnBrokerError(str(error)) from error
