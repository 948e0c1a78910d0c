"""Every check on every broker that it applies to: `pytest tests/conformance -k "kafka and retry"`."""

from __future__ import annotations

import pytest

from deploy.native import BrokerName, Runtime
from deploy.topology import BROKERS
from tests.conformance.catalogue import checks_for, claim_of
from tests.conformance.harness import Check, Harness
from tests.conformance.matrix import Findings


@pytest.mark.parametrize(
    ("system", "check"),
    [
        pytest.param(system, check, id=f"{system}-{claim_of(check).replace(' ', '_')}")
        for system in BROKERS
        for check in checks_for(system)
    ],
)
async def test_the_adapter_keeps_its_obligation(
    system: BrokerName, check: Check, servers: Runtime, findings: Findings
) -> None:
    result = "FAILED"
    harness = Harness(servers, system)
    try:
        async with harness:
            await check(harness)
        result = "holds"
    finally:
        findings.checked(claim_of(check), system, result, harness.duplicates)
