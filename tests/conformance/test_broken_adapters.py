"""The suite can fail: adapters broken on purpose are caught, by the check and for the reason that is meant."""

from __future__ import annotations

import asyncio

import pytest

from deploy.native import BrokerName, Runtime
from deploy.topology import BROKERS
from tests.conformance import checks_recovery as recovery
from tests.conformance.breaks import BREAKS
from tests.conformance.broken import Sound
from tests.conformance.catalogue import applies_to, claim_of
from tests.conformance.harness import DEADLINE_S, Check, Harness
from tests.conformance.matrix import Findings

pytestmark = pytest.mark.timeout(400)

BROKEN_DEADLINE_S = 15.0
"""A broken adapter makes its check wait in vain for so long; the sound ones get a minute."""
AT_ONCE = 10
"""They do little but wait, so they wait together."""

CATCHERS: list[Check] = sorted({check for pairs in BREAKS.values() for check, _ in pairs}, key=claim_of)

Pair = tuple[BrokerName, type[Sound], Check]
Outcomes = dict[Pair, Exception | None]


@pytest.fixture(scope="module")
async def outcomes(servers: Runtime) -> Outcomes:
    """What each check said of each adapter, broken and sound; None where it was content."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def outcome(system: BrokerName, adapter: type[Sound], check: Check) -> Exception | None:
        deadline_s = DEADLINE_S if adapter is Sound else BROKEN_DEADLINE_S
        async with limit:
            try:
                async with Harness(servers, system, adapter, deadline_s) as harness:
                    await check(harness)
            except Exception as error:  # noqa: BLE001  the tests look at it
                return error
        return None

    pairs = [(broken, check) for broken, catchers in BREAKS.items() for check, _ in catchers]
    pairs += [(Sound, check) for check in CATCHERS]
    asked: list[Pair] = [
        (system, adapter, check) for system in BROKERS for adapter, check in pairs if applies_to(system, check)
    ]
    # What is to come back soon shows it when the broker is not busy with all the others.
    alone = [one for one in asked if one[1] is Sound and one[2].__module__ == recovery.__name__]
    together = [one for one in asked if one not in alone]
    said = dict(zip(together, await asyncio.gather(*(outcome(*one) for one in together)), strict=True))
    return said | {one: await outcome(*one) for one in alone}


@pytest.mark.parametrize(
    ("system", "broken", "check", "reason"),
    [
        pytest.param(system, broken, check, reason, id=f"{system}-{broken.__name__}-{check.__name__}")
        for system in BROKERS
        for broken, catchers in BREAKS.items()
        for check, reason in catchers
        if applies_to(system, check)
    ],
)
def test_a_broken_adapter_is_caught(
    system: BrokerName, broken: type[Sound], check: Check, reason: str, outcomes: Outcomes, findings: Findings
) -> None:
    caught = "NOT CAUGHT"
    try:
        with pytest.raises(AssertionError, match=reason):
            _raise(outcomes[system, broken, check])
        caught = "caught"
    finally:
        findings.caught(f"{broken.__name__}: {claim_of(check)}", system, caught)


@pytest.mark.parametrize(
    ("system", "check"),
    [
        pytest.param(system, check, id=f"{claim_of(check)}-{system}")
        for check in CATCHERS
        for system in BROKERS
        if applies_to(system, check)
    ],
)
def test_the_same_wrapper_unbroken_is_not_caught(system: BrokerName, check: Check, outcomes: Outcomes) -> None:
    _raise(outcomes[system, Sound, check])


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error
