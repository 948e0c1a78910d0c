"""Whatever is sent to a consumer, a good event behind it takes effect, and each input has one fate.

A consumer process of its own reads what hypothesis makes of the alphabet. The fate of each input is told before,
by reading it here with the same code, and then counted in the database and in the dead-letter place. Seeded:
FUZZ_SEED (a number, told at a failure) plays the same again; FUZZ_MINUTES says how long, half of it per broker.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from uuid import uuid4

import hypothesis
import orjson
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from sqlalchemy import text

from shared.broker.base import BODY_BYTES_MAX
from shared.consuming import Handler
from shared.envelope import Envelope
from tests.fuzz.alphabet import Input, inputs
from tests.fuzz.senders import stranger
from tests.integration.world import TYPE, Happened, World, eventually, happened, on_happened

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "20261125"))
SHORT_S = 4.0
BUDGET_S = max(SHORT_S, MINUTES * 30)
EXAMPLES = 8
"""In a round, which has a seed of its own."""
BATCH_MAX = 12
"""Inputs between two looks."""
PATIENCE_S = 60.0
MEMORY_MAX = 500 * 2**20
"""Bytes that the consumer may take at its peak, with the largest events in flight."""
INT4_MAX = 2**31 - 1
pytestmark = pytest.mark.timeout(BUDGET_S + 240)


class Fate(Enum):
    """What becomes of an input."""

    EFFECT = "once, however often it is sent"
    IGNORED = "nothing"
    REFUSED = "a letter each time, as it cannot be read"
    FAILED = "a letter, as its handler fails; one for all copies that arrive together"


def fate(body: bytes | None) -> Fate:
    """The fate of these bytes, by reading them as the pipeline does."""
    try:
        envelope = Envelope.decode(body or b"")
        if envelope.type != TYPE:
            return Fate.IGNORED if envelope.type == "thing.ignored" else Fate.REFUSED
        number = Handler(Happened, on_happened).read(envelope).data.number
    except Exception:  # noqa: BLE001 - a model's own code may raise anything; the pipeline says so, too
        return Fate.REFUSED
    return Fate.EFFECT if abs(number) <= INT4_MAX else Fate.FAILED


class Account:
    """What was sent on one channel, and what has become of it."""

    def __init__(self, world: World, process: asyncio.subprocess.Process) -> None:
        self.world, self.process = world, process
        self.stranger = stranger(world)
        self.effects: Counter[str] = Counter()
        self.letters: Counter[bytes] = Counter()
        self.sent = 0
        self.taken_effect = 0
        self.put_aside = 0
        self._position = 0

    async def check(self, given: Sequence[Input]) -> None:
        """Send these, and good events behind them; each has its one fate."""
        for one in given:
            body = one.body(uuid4().hex)
            expected_fate = fate(body)
            times = 1 if expected_fate is Fate.FAILED else one.times
            times = sum([await self.stranger.send(one, body) for _ in range(times)])
            self.sent += times
            if not times:
                continue
            if expected_fate is Fate.EFFECT:
                self.effects[Envelope.decode(body or b"").id] = 1
            elif expected_fate is not Fate.IGNORED:
                self.letters[(body or b"")[:BODY_BYTES_MAX]] += times
        good = [happened(self.sent, key=f"good-{place}") for place in range(self.stranger.places)]
        await self.stranger.send_good([event.encode() for event in good])
        expected = {event.id for event in good}
        found: Counter[str] = Counter()

        async def behind() -> bool:
            found.update(await self._new_effects())
            return expected <= found.keys()

        await eventually(behind, "the good events behind take effect", PATIENCE_S)
        assert self.process.returncode is None, "the consumer process ended"
        await self._settle(found, expected)

    async def _settle(self, found: Counter[str], good: set[str]) -> None:
        async def all_there() -> bool:
            found.update(await self._new_effects())
            return sum(self.letters.values()) <= len(self.stranger.letters) and self.effects.keys() <= found.keys()

        try:
            await eventually(all_there, "every input has its fate", PATIENCE_S)
        except AssertionError as error:
            missing = [body[:300] for body in (self.letters - Counter(self.stranger.letters)).elements()]
            error.add_note(f"no letter: {missing}; no effect: {self.effects.keys() - found.keys()}")
            raise
        assert found - Counter(good) == self.effects, "an effect that nobody asked for, or a doubled one"
        assert Counter(self.stranger.letters) == self.letters, "a letter that nobody sent, or a doubled one"
        self.taken_effect += len(self.effects)
        self.put_aside += len(self.stranger.letters)
        self.effects.clear()
        self.letters.clear()
        self.stranger.letters.clear()

    async def _new_effects(self) -> list[str]:
        async with self.world.database.engine.connect() as connection:
            statement = text("select position, event_id from effect where position > :after order by position")
            rows = list(await connection.execute(statement, {"after": self._position}))
        self._position = max([self._position, *(row.position for row in rows)])
        return [row.event_id for row in rows]


@contextmanager
def watched(process: asyncio.subprocess.Process) -> Iterator[None]:
    """The process lives and has kept within its bound at the end."""
    yield
    assert process.returncode is None, "the consumer process ended"
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1_024 for line in status if line.startswith("VmHWM"))
    assert peak < MEMORY_MAX, f"the consumer took {peak / 2**20:.0f} MiB"


async def test_whatever_is_sent_a_good_event_behind_it_takes_effect_and_each_has_one_fate(world: World) -> None:
    await world.publisher()  # declares the channel, before the process consumes from it
    values = orjson.dumps(world.setting_values(batch_max=50, handler_attempts_max=2))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.dying",
        world.channel,
        values.decode(),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        account = Account(world, process)
        async with account.stranger:
            with watched(process):
                await play(account)
            print(f"{account.sent} sent, {account.taken_effect} took effect, {account.put_aside} put aside")
            assert min(account.taken_effect, account.put_aside) > 0, "the alphabet says too little"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def play(account: Account) -> None:
    """Rounds until the time is over."""
    deadline, seed = time.monotonic() + BUDGET_S, SEED
    while seed == SEED or time.monotonic() < deadline:
        for given in examples(account.world.broker_name, seed):
            try:
                await account.check(given)
            except Exception as error:
                error.add_note(f"again: FUZZ_SEED={seed}; sent:\n" + "\n".join(map(repr, given)))
                raise
        seed += 1


def examples(broker: str, seed: int) -> list[list[Input]]:
    """What is sent in the round of this seed. It is made before, since the clients use random numbers, too; and
    none is made smaller after a failure: what stopped the stream would fail every further one."""
    made: list[list[Input]] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.lists(inputs(broker), min_size=3, max_size=BATCH_MAX))
    def collect(given: list[Input]) -> None:
        made.append(given)

    collect()
    return made
