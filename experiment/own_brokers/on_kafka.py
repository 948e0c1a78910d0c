"""Looks for and deletes a run's topics and groups on a Kafka of one's own: all that begin with its prefix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupIdNotFound,
    GroupLoadInProgressError,
    KafkaError,
    NoError,
    NonEmptyGroup,
    NotCoordinatorForGroupError,
    UnknownError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import DeleteGroupsRequest

from experiment.own_brokers.told import CONNECT_TIMEOUT_S, OwnBroker, OwnBrokerError
from shared.broker.kafka import connection_options

_NOT_THERE = "never-there"
_POLL_S = 0.5
_GONE_TIMEOUT_S = 30.0
"""A group has members until the session of one that was killed is over, and a topic is listed until all nodes have
heard."""
_ALLOWED = (
    NoError,
    UnknownTopicOrPartitionError,
    GroupIdNotFound,
    NonEmptyGroup,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)


async def require_unused(own: OwnBroker) -> None:
    """Raises `OwnBrokerError` when a topic of a name that the run will create is there."""
    async with _asking(own) as asked:
        if there := await asked.topics():
            raise OwnBrokerError(f"Kafka at {own.where} has {there[0]} already, which the run would create")


async def require_deletable(own: OwnBroker) -> None:
    """Raises `OwnBrokerError` when it may not delete topics and groups: asked by deleting what is not there, since
    what is created first might have to stay."""
    name = f"{own.prefix}{_NOT_THERE}"
    async with _asking(own) as asked:
        _require_allowed(own, "topics", await asked.delete_topics([name]))
        _require_allowed(own, "groups", await asked.delete_group(name))


async def delete_all(own: OwnBroker) -> None:
    """Delete every topic and group that begins with the run's prefix. Raises `OwnBrokerError`."""
    async with _asking(own) as asked, asyncio.timeout(_GONE_TIMEOUT_S):
        while groups := await asked.groups():
            for group in groups:
                _require_allowed(own, "groups", await asked.delete_group(group))
            await asyncio.sleep(_POLL_S)
        while topics := await asked.topics():
            _require_allowed(own, "topics", await asked.delete_topics(topics))
            await asyncio.sleep(_POLL_S)


async def version(_own: OwnBroker) -> str:
    """Kafka's protocol does not tell."""
    return "(version not told)"


def _require_allowed(own: OwnBroker, what: str, found: type[KafkaError]) -> None:
    if found not in _ALLOWED:
        why = f"{found.__name__}{', as where delete.topic.enable is false' if found is UnknownError else ''}"
        raise OwnBrokerError(
            f"Kafka at {own.where} does not let this account delete {what} that begin with {own.prefix}: {why}"
        )


class _Asked:
    """The administration of one cluster, as far as a run needs it."""

    def __init__(self, own: OwnBroker, admin: AIOKafkaAdminClient, client: AIOKafkaClient) -> None:
        self._prefix = own.prefix
        self._admin = admin
        self._client = client

    async def topics(self) -> list[str]:
        return sorted(name for name in await self._admin.list_topics() if name.startswith(self._prefix))

    async def groups(self) -> list[str]:
        return sorted(
            name for name, *_ in await self._admin.list_consumer_groups() if name.startswith(self._prefix)
        )

    async def delete_topics(self, names: list[str]) -> type[KafkaError]:
        """The first error, if there is one; they are gone a little later."""
        response = await self._admin.delete_topics(names)
        found: list[type[KafkaError]] = [for_code(code) for _, code in response.topic_error_codes]
        return next((each for each in found if each not in _ALLOWED), NoError)

    async def delete_group(self, name: str) -> type[KafkaError]:
        """The error; aiokafka's administration has no such call. A new cluster makes its coordinator when somebody
        first asks for it, and says meanwhile that there is none."""
        try:
            node = await self._admin.find_coordinator(name)
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(_POLL_S)
            return await self.delete_group(name)
        response: Any = await self._client.send(node, DeleteGroupsRequest([name]))
        found: type[KafkaError] = for_code(response.results[0][1])
        return found


@asynccontextmanager
async def _asking(own: OwnBroker) -> AsyncIterator[_Asked]:
    options = connection_options(own.settings)
    admin, client = AIOKafkaAdminClient(**options), AIOKafkaClient(**options)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S + _GONE_TIMEOUT_S):
            await admin.start()
            await client.bootstrap()
            yield _Asked(own, admin, client)
    except TimeoutError as error:
        raise OwnBrokerError(f"Kafka at {own.where} does not answer in time") from error
    except (KafkaError, OSError) as error:
        raise OwnBrokerError(f"Kafka at {own.where} refuses: {error}") from error
    finally:
        await admin.close()
        await client.close()
