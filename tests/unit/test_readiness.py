"""Readiness is asked by role, and answered whatever the servers do with the question."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from services.order.app import SERVICE
from shared.errors import UnavailableError
from shared.process.process import Process
from shared.process.readiness import Question
from shared.process.server import application_of
from shared.publishing import Relay
from tests.unit.unserved import unserved

ALL_READY = {"postgres": {"ready": True}, "redis": {"ready": True}, "rabbit": {"ready": True}}


async def well() -> None:
    pass


async def away() -> None:
    raise UnavailableError("nobody there")


async def ready(client: httpx.AsyncClient) -> tuple[int, dict[str, object]]:
    answer = await client.get("/health/ready")
    return answer.status_code, answer.json()


@pytest.mark.parametrize("broker", ["rabbit", "kafka"])
@pytest.mark.parametrize(
    ("roles", "lacks", "status"),
    [
        ({"api"}, set(), 200),
        ({"api"}, {"broker"}, 200),
        ({"api", "relay"}, {"broker"}, 200),
        ({"api"}, {"broker", "redis"}, 200),
        ({"api"}, {"postgres"}, 503),
        ({"relay"}, {"broker"}, 503),
        ({"consumer"}, {"broker"}, 503),
        ({"api", "consumer"}, {"broker"}, 503),
        ({"consumer"}, {"redis"}, 200),
        ({"consumer"}, {"postgres"}, 503),
    ],
)
async def test_a_process_is_ready_for_what_its_roles_do_and_says_what_it_lacks(
    broker: str, roles: set[str], lacks: set[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = unserved(SERVICE, "rabbit" if broker == "rabbit" else "kafka", roles)
    monkeypatch.setattr(type(parts.database), "ping", lambda _: (away if "postgres" in lacks else well)())
    monkeypatch.setattr(type(parts.claims), "ping", lambda _: (away if "redis" in lacks else well)())
    monkeypatch.setattr(type(parts.broker), "ping", lambda _: (away if "broker" in lacks else well)())
    process = Process(SERVICE, parts)
    process._connected.set()
    application = application_of(process)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as client:
        code, said = await ready(client)
        assert (code, said["ready"]) == (status, status == 200)
        named = {broker if name == "broker" else name for name in lacks}
        assert said["dependencies"] == {
            name: {"ready": False, "problem": "nobody there"} if name in named else {"ready": True}
            for name in ("postgres", "redis", broker)
        }
        needed = {"postgres"} if status == 200 else named
        assert said["degraded"] == dict.fromkeys(named - needed, "nobody there")
        parts.outbox_gate.closed = True
        assert "outbox" in (await ready(client))[1]["degraded"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("roles", "status"), [({"relay"}, 503), ({"api", "relay"}, 200), ({"api", "relay", "consumer"}, 200)]
)
async def test_an_outbox_that_stands_still_is_told(
    roles: set[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though every server answers. Where requests are served, they go on."""
    parts = unserved(SERVICE, "rabbit", roles)
    for part in (parts.database, parts.claims, parts.broker):
        monkeypatch.setattr(type(part), "ping", lambda _: well())
    process = Process(SERVICE, parts)
    process._connected.set()
    monkeypatch.setattr(Relay, "trouble", "stands still")
    transport = httpx.ASGITransport(application_of(process))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert await ready(client) == (200, {"ready": True, "degraded": {}, "dependencies": ALL_READY})
        parts.relays.append(Relay(parts.settings, parts.broker, parts.telemetry))
        code, said = await ready(client)
        assert (code, said["ready"], "stands still" in str(said)) == (status, status == 200, True)
        assert said["degraded"] == ({"outbox": "stands still"} if status == 200 else {})


async def test_what_hangs_is_said_in_time_and_asked_once_however_many_probes_come() -> None:
    asked, thawed = 0, asyncio.Event()

    async def hang() -> None:
        """Also when it is told to stop, as a driver that says good-bye to a server that is frozen."""
        nonlocal asked
        asked += 1
        while not thawed.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await thawed.wait()

    question = Question(hang)
    answers = await asyncio.wait_for(asyncio.gather(*(question.problem() for _ in range(20))), 30)
    assert set(answers) == {"no answer in time"}
    assert await question.problem() == "no answer in time"
    assert asked == 1
    thawed.set()
    assert await question.problem() is None, "the answer of the one question"
    assert asked == 1


async def test_any_error_is_a_reason_and_the_next_answer_counts() -> None:
    async def fail() -> None:
        raise KeyError("a bug")

    answers = iter([fail(), well()])
    question = Question(lambda: next(answers))
    assert await question.problem() == "KeyError: 'a bug'"
    assert await question.problem() is None
