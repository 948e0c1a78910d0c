"""A tiny comparison on brokers that somebody else started: whole, and gone from there without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml

from deploy.native import Runtime
from deploy.paths import REPOSITORY
from deploy.topology import BROKERS
from tests.commands import PYTHON
from tests.compare.tiny import TINY
from tests.integration.test_own_brokers import names, planted

pytestmark = pytest.mark.timeout(600)

WORKLOAD = {**TINY, "scenarios": [{"kind": "poison", "rounds": 1, "duration_s": 2, "share": 0.1}]}


async def compared(command: list[str], servers: Runtime, environment: dict[str, str], secret: str) -> str:
    """Run it beside what somebody else has on both brokers; returns what it wrote to standard error."""
    async with planted(servers, "rabbit"), planted(servers, "kafka"):
        return await asyncio.to_thread(_run, command, environment, secret)


def _run(command: list[str], environment: dict[str, str], secret: str) -> str:
    lines = []
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            lines.append(line)
            if "steady load" in line:
                _require_unseen(secret, REPOSITORY / ".run" / f"compare-{running.pid}" / "logs")
        assert running.stdout is not None
        lines.append(running.stdout.read())
    assert running.returncode == 0, "".join(lines)
    return "".join(lines)


def _require_unseen(secret: str, logs: Path) -> None:
    """A password is in no list of processes and in no log."""
    seen = [row.info["cmdline"] for row in psutil.process_iter(["cmdline"]) if secret in str(row.info["cmdline"])]
    assert seen == []
    files = list(logs.iterdir())
    assert any(file.stat().st_size for file in files)
    assert [file.name for file in files if secret in file.read_text(errors="replace")] == []


def test_a_tiny_comparison_on_ones_own_brokers_is_whole_and_leaves_them_as_they_were(
    servers: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(WORKLOAD))
    out, urls = tmp_path / "report", servers.server_urls()
    command = [*PYTHON, "-m", "compare", "--workload", str(tmp_path / "tiny.yml"), "--out", str(out)]
    addresses = {"TANDEM_RABBIT_URL": urls["rabbit"], "TANDEM_KAFKA_SERVERS": urls["kafka"]}
    secret = urlsplit(urls["rabbit"]).password
    assert secret
    before = {broker: asyncio.run(names(servers, broker)) for broker in BROKERS}
    said = asyncio.run(compared(command, servers, {**os.environ, **addresses}, secret))

    [prefix] = set(re.findall(r"begin with (tandem-compare-[0-9a-f]{8}-)", said))
    assert said.index(prefix) < said.index("starting the servers"), "it says first what it will do"
    for broker in BROKERS:
        assert {name for name in asyncio.run(names(servers, broker)) if name.startswith(prefix)} == set()
        assert asyncio.run(names(servers, broker)) >= before[broker]
    assert secret not in said
    for file in out.iterdir():
        assert secret.encode() not in file.read_bytes(), file.name

    summary = json.loads((out / "summary.json").read_text())
    assert [row["name"] for row in summary["controls"] if not row["passed"]] == []
    for figures in summary["brokers"].values():
        assert (figures["lost"], figures["duplicate_effects"], figures["reordered"]) == (0, 0, 0)
        assert figures["acknowledged"] > TINY["backlog"]["events"]
        assert figures["scenarios"][0]["found"]["dead_letters"] >= 1, "letters are found through the client"
        assert [row["layer"] for row in figures["layers"]] == ["publish", "consume", "pipeline"]
        assert figures["cost"]["broker_memory_mib"] is None
        assert figures["cost"]["services_idle_cores"] > 0, "and that of what the run started is"
        assert figures["backlog_rounds"][0]["waiting_at_start"] == TINY["backlog"]["events"]
    assert not any("the layers are not whole" in note for note in summary["notes"])
    assert summary["settings"]["own_brokers"] == {
        "rabbit": f"127.0.0.1:{urlsplit(urls['rabbit']).port}",
        "kafka": urls["kafka"],
    }
    assert "notification.order.retry" not in str(summary["settings"]["topology"]["rabbit"])
    assert prefix not in str(summary["settings"]), "names of one run would differ from those of the next"
    assert summary["versions"]["rabbit"] == servers.versions()["rabbit"]
    assert summary["command"].startswith("TANDEM_RABBIT_URL=amqp://USER:PASSWORD@127.0.0.1:")
