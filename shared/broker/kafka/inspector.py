"""How far a consumer group is behind, and how many consumers it has: asked of the cluster, outside every group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from shared.broker.base import QueueState, Subscription
from shared.broker.kafka.clients import KafkaClients
from shared.broker.kafka.internals import subscribed_topics_of_members
from shared.broker.kafka.producer import KafkaProducer
from shared.broker.kafka.subscriptions import dead_letter_group
from shared.broker.kafka.topics import dead_letter_topic, group_name, subscribed_topics

_OFFSET_NONE = -1


_PING_TIMEOUT_S = 1.5


@dataclass(frozen=True, slots=True)
class _Place:
    """What a group reads under one name, which is without the prefix. Its consumers are the members that subscribe
    to the first topic."""

    queue: str
    group: str
    topics: tuple[str, ...]


class KafkaInspector:
    """`Inspector`."""

    def __init__(self, clients: KafkaClients, producer: KafkaProducer, prefix: str) -> None:
        self._clients = clients
        self._producer = producer
        self._prefix = prefix

    async def queue_states(self, subscriptions: Sequence[Subscription]) -> list[QueueState]:
        """As `Inspector.queue_states`."""
        return await self._states(
            [
                _Place(s.queue, group_name(s, self._prefix), subscribed_topics(s, self._prefix))
                for s in subscriptions
            ]
        )

    async def dead_letter_states(self, subscriptions: Sequence[Subscription], group: str) -> list[QueueState]:
        """As `Inspector.dead_letter_states`."""
        places = [
            _Place(
                dead_letter_topic(s, ""),
                dead_letter_group(group, s, self._prefix),
                (dead_letter_topic(s, self._prefix),),
            )
            for s in subscriptions
        ]
        return await self._states(places)

    async def _states(self, places: Sequence[_Place]) -> list[QueueState]:
        async with self._clients.admin() as admin, self._clients.onlooker() as onlooker, self._clients.asking():
            await admin.start()
            await onlooker.start()
            return await _queue_states(admin, onlooker, places)

    async def ping(self) -> None:
        """As `Inspector.ping`."""
        async with self._clients.asking(_PING_TIMEOUT_S):
            await self._producer.ping()


async def _queue_states(
    admin: AIOKafkaAdminClient, offsets: AIOKafkaConsumer, places: Sequence[_Place]
) -> list[QueueState]:
    """The state of each, without those whose first topic is not there; both clients are started, and the caller
    bounds the time. Raises `KafkaError`."""
    # To describe a topic that is missing would create it, where the cluster lets it.
    known = set(await admin.list_topics())
    places = [place for place in places if place.topics[0] in known]
    if not places:
        return []
    described = await admin.describe_topics(sorted({t for place in places for t in place.topics} & known))
    partitions = {
        topic["topic"]: [TopicPartition(topic["topic"], p["partition"]) for p in topic["partitions"]]
        for topic in described
    }
    every = [partition for of_topic in partitions.values() for partition in of_topic]
    beginnings, ends = await offsets.beginning_offsets(every), await offsets.end_offsets(every)
    groups = sorted({place.group for place in places})
    committed = {group: await admin.list_consumer_group_offsets(group) for group in groups}
    members = {group: await _members(admin, group) for group in groups}
    states = []
    for place in places:
        own = [partition for topic in place.topics for partition in partitions.get(topic, ())]
        done = committed[place.group]
        behind = sum(max(0, ends[p] - _position(done.get(p), beginnings[p])) for p in own)
        consumers = sum(place.topics[0] in subscribed for subscribed in members[place.group])
        states.append(QueueState(place.queue, place.topics[0], place.group, behind, consumers))
    return states


def _position(committed: Any, beginning: int) -> int:
    """Where the group goes on; what retention has deleted is not waited for any more."""
    if committed is None or committed.offset == _OFFSET_NONE:
        return beginning
    return max(int(committed.offset), beginning)


async def _members(admin: AIOKafkaAdminClient, group: str) -> list[list[str]]:
    """The topics that each member of the group subscribes to."""
    [response] = await admin.describe_consumer_groups([group])
    return subscribed_topics_of_members(response)
