"""What the tests of the recipes run inside the copy: `python -m tests.contributing.in_the_copy …`.

conformance ROOT BROKER CHECK…   runs checks of the conformance suite on an adapter
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from deploy.native import Ports, Runtime


async def conformance(root: str, broker: str, *names: str) -> dict[str, str]:
    """Raises what a check raises; by check, what it claims."""
    from tests.conformance.catalogue import checks_for, claim_of
    from tests.conformance.harness import Harness

    runtime = Runtime(Path(root), Ports(25_000))  # for the addresses alone: nothing is started
    checks = {check.__name__: check for check in checks_for(broker)}  # type: ignore[arg-type]
    for name in names:
        async with Harness(runtime, broker) as harness:  # type: ignore[arg-type]
            await checks[name](harness)
    return {name: claim_of(checks[name]) for name in names}


def main(what: str, *arguments: str) -> None:
    """Print one JSON document."""
    assert what == "conformance"
    print(json.dumps(asyncio.run(conformance(*arguments))))


if __name__ == "__main__":
    main(*sys.argv[1:])
