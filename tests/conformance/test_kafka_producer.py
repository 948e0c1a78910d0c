"""An idempotent producer whose sequence the cluster refuses never recovers by itself; the adapter's does."""

from __future__ import annotations

from aiokafka import TopicPartition

from deploy.native import Runtime
from shared.broker.kafka.producer import KafkaProducer
from tests.conformance.harness import Harness, eventually, publish_all


async def test_a_producer_out_of_sequence_is_replaced(servers: Runtime) -> None:
    async with Harness(servers, "kafka") as harness:
        broker, recorder = await harness.broker(kafka_partitions=1), harness.recorder()
        await broker.subscribe(harness.subscription(), recorder)
        producer = KafkaProducer(harness.settings(publish_timeout_s=5.0), "test")
        producer.channels.add(harness.channel)
        await producer.start()
        try:
            before = harness.messages(2, prefix="before-")
            assert await producer.publish(before) == []
            partition = TopicPartition(f"{harness.channel}-events", 0)
            inner = producer._producer
            assert inner is not None
            # As after a batch that was lost for good: a gap in the sequence of the partition.
            inner._txn_manager.increment_sequence_number(partition, 1_000)
            lost = harness.messages(1, prefix="refused-")
            assert len(await producer.publish(lost)) == 1

            async def confirmed() -> bool:
                return not await producer.publish(lost)

            await eventually(confirmed, "a new producer publishes", harness.deadline_s)
            after = harness.messages(2, prefix="after-")
            await publish_all(broker, after)
            await recorder.until_got([*before, *lost, *after])
        finally:
            await producer.stop(1.0)
