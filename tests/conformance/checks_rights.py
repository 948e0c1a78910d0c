"""Who is refused: a process that starts says so and gives up, one that runs loses nothing and waits."""

from __future__ import annotations

import pytest
from yarl import URL

from shared.broker.base import Broker
from shared.errors import ConfigurationError, UnavailableError
from tests.conformance.harness import Harness, eventually, only_on, publish_all
from tests.conformance.servers_seen import delete_account, give_rights, make_account, take_rights_away

PATIENCE_S = 3.0


@only_on("rabbit")
async def check_a_wrong_password_is_refused(harness: Harness) -> None:
    url = URL(harness.runtime.server_urls()["rabbit"]).with_password("wrong")
    broker = harness.make(rabbit_url=str(url), connect_timeout_s=PATIENCE_S)
    with pytest.raises(ConfigurationError, match="ACCESS_REFUSED") as refused:
        async with broker:
            pytest.fail("let in")
    assert "\n" not in str(refused.value), "one sentence"


@only_on("rabbit")
async def check_a_start_without_rights_is_refused(harness: Harness) -> None:
    url = await make_account(harness.runtime, harness.channel)
    try:
        await take_rights_away(harness.runtime, harness.channel)
        broker = await harness.broker(rabbit_url=url)  # to connect it may
        with pytest.raises(ConfigurationError, match="ACCESS_REFUSED"):
            await broker.declare([harness.channel])
        await give_rights(harness.runtime, harness.channel)
        await broker.declare([harness.channel])
    finally:
        await delete_account(harness.runtime, harness.channel)


@only_on("rabbit")
async def check_rights_that_are_taken_away_lose_nothing(harness: Harness) -> None:
    """Publishing fails in a way that says "again", consuming stands still; given back, all goes on by itself."""
    url = await make_account(harness.runtime, harness.channel)
    try:
        broker = await harness.broker(rabbit_url=url, publish_timeout_s=2.0)
        other, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
        await broker.subscribe(subscription, recorder)
        await other.declare([harness.channel], [subscription])
        first = harness.messages(5)
        await publish_all(broker, first)
        await recorder.until_settled(first)
        await take_rights_away(harness.runtime, harness.channel)
        own = harness.messages(3, prefix="own-")

        async def refused() -> bool:
            failures = await broker.publish(own[:1])
            assert all(isinstance(failure.error, UnavailableError) for failure in failures), "given up"
            return bool(failures)

        await eventually(refused, "without the right nothing is published", harness.deadline_s)
        waiting = harness.messages(5, prefix="waiting-")
        await publish_all(other, waiting)
        await give_rights(harness.runtime, harness.channel)
        await eventually(lambda: _confirmed(broker, harness), "publishing works again", harness.deadline_s)
        await publish_all(broker, own)
        await recorder.until_settled([*waiting, *own])
        harness.duplicates += recorder.duplicates()
    finally:
        await delete_account(harness.runtime, harness.channel)


async def _confirmed(broker: Broker, harness: Harness) -> bool:
    return not await broker.publish(harness.messages(1, prefix="again-"))
