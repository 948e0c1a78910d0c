"""How far a consumer group is behind, and how many consumers it has: asked of the cluster, outside every group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

from shared.broker.base import QueueState, Subscription, destination_name

_OFFSET_NONE = -1


async def queue_states(
    admin: AIOKafkaAdminClient, offsets: AIOKafkaConsumer, subscriptions: Sequence[Subscription]
) -> list[QueueState]:
    """The state of each; both clients are started, and the caller bounds the time. Raises `KafkaError`."""
    committed = {
        group: await admin.list_consumer_group_offsets(group) for group in {s.subscriber for s in subscriptions}
    }
    topics = {s.queue: _topics(s, committed[s.subscriber]) for s in subscriptions}
    described = await admin.describe_topics(sorted(set().union(*topics.values())))
    partitions = {
        topic["topic"]: [TopicPartition(topic["topic"], p["partition"]) for p in topic["partitions"]]
        for topic in described
    }
    every = [partition for of_topic in partitions.values() for partition in of_topic]
    beginnings, ends = await offsets.beginning_offsets(every), await offsets.end_offsets(every)
    members = {group: await _members(admin, group) for group in committed}
    states = []
    for subscription in subscriptions:
        own = [partition for topic in topics[subscription.queue] for partition in partitions.get(topic, ())]
        done = committed[subscription.subscriber]
        behind = sum(max(0, ends[p] - _position(done.get(p), beginnings[p])) for p in own)
        topic = destination_name("kafka", subscription.channel)
        consumers = sum(topic in subscribed for subscribed in members[subscription.subscriber])
        states.append(QueueState(subscription.queue, behind, consumers))
    return states


def _topics(subscription: Subscription, committed: dict[TopicPartition, Any]) -> set[str]:
    """The channel's topic, and what the group has read of topics of the subscription's own."""
    own = {partition.topic for partition in committed if partition.topic.startswith(f"{subscription.queue}.")}
    return {destination_name("kafka", subscription.channel), *own}


def _position(committed: Any, beginning: int) -> int:
    """Where the group goes on; what retention has deleted is not waited for any more."""
    if committed is None or committed.offset == _OFFSET_NONE:
        return beginning
    return max(int(committed.offset), beginning)


async def _members(admin: AIOKafkaAdminClient, group: str) -> list[list[str]]:
    """The topics that each member of the group subscribes to."""
    [response] = await admin.describe_consumer_groups([group])
    subscribed = []
    for described in response.groups:
        for member in described[5]:  # error, group, state, protocol type, protocol, members
            metadata = member[-2]  # …, metadata, assignment
            if metadata:  # none while the group is rebalancing
                subscribed.append(list(ConsumerProtocolMemberMetadata.decode(metadata).subscription))
    return subscribed
