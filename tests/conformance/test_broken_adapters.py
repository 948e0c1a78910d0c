"""The suite can fail: adapters broken on purpose are caught, by the check and for the reason that is meant."""

from __future__ import annotations

import pytest

from deploy.native import BrokerName, Runtime
from deploy.topology import BROKERS
from tests.conformance.broken import BREAKS, Sound
from tests.conformance.catalogue import claim_of
from tests.conformance.harness import Check, Harness
from tests.conformance.report import Report

DEADLINE_S = 5.0
"""A broken adapter makes its check wait in vain for so long; the sound ones get a minute."""

CATCHERS: list[Check] = sorted({check for pairs in BREAKS.values() for check, _ in pairs}, key=claim_of)


@pytest.mark.parametrize(
    ("system", "broken", "check", "reason"),
    [
        pytest.param(system, broken, check, reason, id=f"{system}-{broken.__name__}-{check.__name__}")
        for system in BROKERS
        for broken, catchers in BREAKS.items()
        for check, reason in catchers
    ],
)
async def test_a_broken_adapter_is_caught(
    system: BrokerName, broken: type[Sound], check: Check, reason: str, servers: Runtime, report: Report
) -> None:
    caught = "NOT CAUGHT"
    try:
        with pytest.raises(AssertionError, match=reason):
            async with Harness(servers, system, broken, DEADLINE_S) as harness:
                await check(harness)
        caught = "caught"
    finally:
        report.caught.setdefault(f"{broken.__name__}: {claim_of(check)}", {})[system] = caught


@pytest.mark.parametrize("system", BROKERS)
@pytest.mark.parametrize("check", CATCHERS, ids=claim_of)
async def test_the_same_wrapper_unbroken_is_not_caught(system: BrokerName, check: Check, servers: Runtime) -> None:
    async with Harness(servers, system, Sound) as harness:
        await check(harness)
