"""Runs parts of the whole by themselves: the client library without effect, the pipeline without broker, modes."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from math import ceil
from statistics import median
from typing import Any

from compare.limiter import layer_limiter
from compare.measured import LayerResult, MeasuredSide, stamps_directory
from deploy.topology import BrokerName
from experiment.backlog import backlog_messages
from experiment.effects import CONSUMER
from experiment.figures import HIGH_SHARE, LOW_SHARE, SHORT_S
from experiment.layers import AS_TANDEM, MODES, LayerError, Mode, run_clients, write_messages
from experiment.side import Side
from experiment.stamping import stamps_environment
from experiment.usage import OTHERS, Usage
from experiment.workload import Layers
from shared.errors import TandemError

PUBLISH, CONSUME, PIPELINE = "publish", "consume", "pipeline"
COPIES_MAX = 15
"""A client carries the same messages so many times over, and no more: they stay on the broker's disk."""
DEFINITION = (
    "messages per second between 5 % and 95 %, median of the rounds; publish and consume: by aio-pika or aiokafka "
    "alone, with the options of Tandem's adapters, confirmed in windows and acknowledged by batches, without any "
    f"effect, the same messages several times over (at most {COPIES_MAX}) where a rate would else be taken over "
    f"less than {SHORT_S:g} s; pipeline: Tandem's pipeline with its effects in Redis and PostgreSQL, given "
    "batches as large as the drain's from memory; all of them with the bytes that the relay publishes"
)
_STARTING_S = 1.5
_LONG_ENOUGH_S = 0.75
"""What is run again shall take so long: over `SHORT_S` also where the next one is a third faster."""
_ABOUT_PER_S: dict[BrokerName, dict[str, int]] = {
    "rabbit": {PUBLISH: 15_000, CONSUME: 20_000, PIPELINE: 15_000},
    "kafka": {PUBLISH: 40_000, CONSUME: 200_000, PIPELINE: 15_000},
}


def copies_after(copies: int, seconds: float) -> int:
    """How many times over the clients carry the messages next, after a rate of so many was taken over `seconds`.

    As many again, where that was long enough; else so many that it is, as far as `COPIES_MAX` allows.
    """
    if seconds >= SHORT_S:
        return copies
    wanted = ceil(copies * _LONG_ENOUGH_S / seconds) if seconds > 0 else COPIES_MAX
    return max(copies, min(wanted, COPIES_MAX))


def layers_s(broker: BrokerName, asked: Layers, number: int) -> float:
    """About how long a round takes, in seconds; the first one has the run that was too short, too."""
    per_s = _ABOUT_PER_S[broker]
    copies = copies_after(1, (HIGH_SHARE - LOW_SHARE) * asked.events / max(per_s[PUBLISH], per_s[CONSUME]))

    def clients_s(copies: int) -> float:
        return sum(copies * asked.events / per_s[layer] + _STARTING_S for layer in (PUBLISH, CONSUME))

    too_short_s = clients_s(1) if number == 1 and copies > 1 else 0.0
    pipeline_s = asked.events / per_s[PIPELINE] + _STARTING_S
    return pipeline_s + len(_runs(broker, asked)) * clients_s(copies) + too_short_s


async def run_layers(measured: MeasuredSide, asked: Layers, number: int) -> None:
    """Run each layer once. What fails is noted, and no more layers are run on this side.

    They are the last of a run, which is measured and checked by then, and whole without them.
    """
    if measured.layer_failure is not None:
        return
    try:
        await _Round(measured, asked, number).run()
    except (LayerError, TandemError) as error:
        measured.layer_failure = str(error)
    except Exception as error:  # noqa: BLE001  a fault of ours, which must not cost an hour of measuring
        measured.side.progress.say(traceback.format_exc())
        measured.layer_failure = repr(error)


def _runs(broker: BrokerName, asked: Layers) -> list[tuple[Mode, int]]:
    """The modes with their numbers of consumers; Tandem's own mode with one is among them always."""
    if not asked.modes:
        return [(MODES[AS_TANDEM[broker]], 1)]
    return [(mode, count) for mode in MODES.values() if mode.broker == broker for count in mode.consumers]


class _Round:
    def __init__(self, measured: MeasuredSide, asked: Layers, number: int) -> None:
        self._measured = measured
        self._side: Side = measured.side
        self._asked = asked
        self._number = number
        runtime, broker = self._side.runtime, self._side.broker
        self._file = runtime.root / f"layers-{broker}.jsonl"
        stamps = stamps_environment(stamps_directory(runtime.root, broker))
        self._environment = {**runtime.service_env(CONSUMER, broker, broker), **stamps}

    async def run(self) -> None:
        side = self._side
        messages = await backlog_messages(
            side.settings("order"),
            side.users,
            side.workload.backlog,
            events=self._asked.events,
            seed=f"{side.workload.seed}-layers-{self._number}",
            clock=side.clock,
            note_bytes=side.workload.payload_bytes,
        )
        write_messages(self._file, messages)
        for mode, consumers in _runs(side.broker, self._asked):
            await self._run_clients(mode, consumers)
        commands = [[PIPELINE, str(self._file), str(self._batch_max())]]
        self._measured.layers.append(await self._run(PIPELINE, None, 1, commands))

    async def _run_clients(self, mode: Mode, consumers: int) -> None:
        """Publish and consume; again, with more copies, where one of them was over too soon to tell a rate.

        What was over too soon does not count. The runs after it begin with as many copies.
        """
        shares = [",".join(map(str, share)) for share in mode.shares(consumers)]
        consuming = [[CONSUME, mode.name, share] for share in shares]
        while True:
            copies = self._measured.layer_copies
            publishing = [[PUBLISH, mode.name, str(self._file), str(copies)]]
            published = await self._run(PUBLISH, mode, 1, publishing, copies)
            consumed = await self._run(CONSUME, mode, consumers, consuming, copies)
            shortest = min(each.ran.rate.seconds for each in (published, consumed))
            self._measured.layer_copies = copies_after(copies, shortest)
            if self._measured.layer_copies == copies:
                self._measured.layers += [published, consumed]
                return

    def _batch_max(self) -> int:
        """As many in a batch as the drain had, where there was one."""
        drained = [result.events_per_batch.get("received", 0.0) for result in self._measured.backlogs]
        highest = self._side.settings(CONSUMER).batch_max
        return min(highest, max(1, round(median(drained)))) if any(drained) else highest

    async def _run(
        self, layer: str, mode: Mode | None, consumers: int, commands: list[list[str]], copies: int = 1
    ) -> LayerResult:
        looks: list[Usage] = []

        async def look() -> None:
            looks.append(await self._side.usage())

        self._side.progress.detail(f"{layer} {mode.name if mode else ''} {consumers if consumers > 1 else ''}")
        ran = await run_clients(commands, self._environment, copies * self._asked.events, look)
        first, last = sorted(looks, key=lambda usage: usage.at_s)
        cpu_s = last.since(first)
        cpu_s[OTHERS] = max(0.0, cpu_s[OTHERS] - sum(ran.cpu_s))
        name = mode.name if mode else None
        return LayerResult(layer, name, consumers, ran, cpu_s, last.at_s - first.at_s, last.details_since(first))


def figures(measured: MeasuredSide, machine_cores: float) -> list[dict[str, Any]]:
    """What each layer did, over the rounds, as plain data."""
    kinds = dict.fromkeys((each.layer, each.mode, each.consumers) for each in measured.layers)
    return [_figure(measured, kind, list(_of(measured.layers, kind)), machine_cores) for kind in kinds]


def _of(results: Iterable[LayerResult], kind: tuple[str, str | None, int]) -> Iterable[LayerResult]:
    return (each for each in results if (each.layer, each.mode, each.consumers) == kind)


def _figure(
    measured: MeasuredSide, kind: tuple[str, str | None, int], results: list[LayerResult], machine_cores: float
) -> dict[str, Any]:
    broker = measured.side.broker
    layer, mode_name, consumers = kind
    rates = [per_s for result in results if (per_s := result.ran.rate.per_s) is not None]
    seconds = sum(result.seconds for result in results)
    mode = MODES[mode_name] if mode_name else None
    return {
        "layer": layer,
        "mode": mode.title if mode else None,
        "order": mode.order if mode else None,
        "as_tandem": mode_name in (None, AS_TANDEM[broker]) and consumers == 1,
        "consumers": consumers,
        "rounds": len(results),
        "messages": min(result.ran.messages for result in results),
        "per_s": round(median(rates), 1) if rates else None,
        "range": [round(min(rates), 1), round(max(rates), 1)] if rates else [None, None],
        "limiter": str(layer_limiter(measured, results, machine_cores) or "not known"),
        "client_cores": round(sum(sum(each.ran.cpu_s) for each in results) / seconds, 3) if seconds else None,
        "broker_cores": round(sum(each.cpu_s[broker] for each in results) / seconds, 3)
        if seconds and measured.broker_measured
        else None,
        "per_batch": round(median(result.ran.per_batch for result in results), 1),
    }
