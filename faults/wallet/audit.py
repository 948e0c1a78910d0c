"""Asks the wallet's own audit whether its ledger is right, as `make audit` does."""

from __future__ import annotations

import asyncio
import sys

from deploy.paths import REPOSITORY
from experiment.side import Side, StalledError

_TIMEOUT_S = 240.0
"""A process is started; where others have the processors, that alone may take a minute."""


async def broken_rules(side: Side) -> list[str]:
    """The rules that are broken, each place by itself. Raises `StalledError` when the ledger cannot be asked."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.wallet.app", "audit"),
        cwd=REPOSITORY,
        env=side.runtime.service_env("wallet", side.broker, side.broker),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, error = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    places = places_of(output.decode())
    if process.returncode not in (0, 1) or (process.returncode == 1) != bool(places):
        raise StalledError(f"the wallet's audit ended with {process.returncode}: {error.decode().strip()}")
    return places


def places_of(audit: str) -> list[str]:
    """The broken rules in what the audit printed, each with the places below it.

    For example `["nothing is negative: 0192…: balance -1, held 0"]`; none where all hold.
    """
    found, rule, places = [], "", 0
    for line in [*audit.splitlines(), "holds  the end"]:
        if line.startswith(" "):
            found.append(f"{rule}: {line.strip()}")
            places += 1
            continue
        if rule and not places:
            found.append(rule)
        rule, places = (line.partition("BROKEN")[2].strip() if line.startswith("BROKEN") else ""), 0
    return found
