"""Steps in real child processes: each has one outcome, whatever happens to its process, and no process is left."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import orjson
import psutil
import pytest

from deploy.paths import REPOSITORY
from shared.children.children import Call, Children, Limits
from shared.children.outcomes import ChildLost, ChildStartError, Done, Failed, Outcome, Progress

STEPS = "tests.unit.children_steps"
LONG_S = 60.0
SHORT_S = 0.05


@pytest.fixture(scope="module")
async def children() -> AsyncIterator[Children]:
    limits = Limits(steps_max=10_000, result_bytes_max=2**20, cancel_grace_s=LONG_S)
    async with Children(2, [STEPS], initialise=f"{STEPS}:initialise", limits=limits) as children:
        yield children


def call(name: str, payload: bytes = b"0", *, soft_s: float = LONG_S, hard_s: float = LONG_S) -> Call:
    return Call(target=f"{STEPS}:{name}", payload=payload, soft_s=soft_s, hard_s=hard_s)


async def value(children: Children, name: str, argument: Any = 0) -> Any:
    outcome = await children.run(call(name, orjson.dumps(argument)))
    assert isinstance(outcome, Done), outcome
    return orjson.loads(outcome.result)


class Told:
    """The first progress of a step."""

    def __init__(self) -> None:
        self.first: asyncio.Future[Progress] = asyncio.get_running_loop().create_future()

    def __call__(self, progress: Progress) -> None:
        if not self.first.done():
            self.first.set_result(progress)

    async def number(self) -> int:
        return int((await asyncio.wait_for(self.first, LONG_S)).current)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(*pids: int) -> None:
    async with asyncio.timeout(LONG_S):
        while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110  nobody is told
            await asyncio.sleep(0.01)


# -- outcomes


async def test_a_result_comes_back_and_one_child_serves_many_steps(children: Children) -> None:
    assert [await value(children, "double", number) for number in range(20)] == list(range(0, 40, 2))
    assert len({await value(children, "pid") for _ in range(5)}) == 1


async def test_as_many_steps_run_at_once_as_there_are_slots(children: Children) -> None:
    told = [Told() for _ in range(3)]
    running = [asyncio.create_task(children.run(call("sleeps"), one)) for one in told]
    pids = {await told[0].number(), await told[1].number()}
    assert len(pids) == 2
    assert not told[2].first.done()
    running[0].cancel()
    assert await told[2].number() == await told[0].number()
    for task in running[1:]:
        task.cancel()
    await asyncio.wait(running)


async def test_what_a_step_raises_comes_back_as_texts(children: Children) -> None:
    failed = await children.run(call("raises"))
    assert isinstance(failed, Failed)
    assert (failed.type, failed.message) == ("builtins.LookupError", "of no use")
    assert failed.types == (
        "builtins.LookupError",
        "builtins.Exception",
        "builtins.BaseException",
        "builtins.object",
    )
    assert 'in raises\n    raise LookupError("of no use") from None' in failed.stack


async def test_errors_without_words_or_without_end_come_back_bounded(children: Children) -> None:
    unspeakable = await children.run(call("raises", b"unspeakable"))
    assert isinstance(unspeakable, Failed)
    assert (unspeakable.type, unspeakable.message) == (f"{STEPS}.Unspeakable", "(no message: RuntimeError)")
    long = await children.run(call("raises", b"long"))
    assert isinstance(long, Failed)
    assert long.message.startswith(r"\ud800\0xxx")
    assert len(long.message) + len(long.stack) < 12_000


async def test_leaving_python_is_a_failure_of_the_step_and_not_of_the_child(children: Children) -> None:
    before = await value(children, "pid")
    failed = await children.run(call("raises", b"exit"))
    assert isinstance(failed, Failed)
    assert failed.type == "builtins.SystemExit"
    assert await value(children, "pid") == before


async def test_a_result_that_is_no_bytes_or_too_many_is_a_failure(children: Children) -> None:
    wrong = await children.run(call("returns_no_bytes"))
    assert isinstance(wrong, Failed)
    assert wrong.message == f"{STEPS}:returns_no_bytes returned dict, not bytes"
    most = await children.run(call("returns_many", b"1048576"))
    assert isinstance(most, Done)
    assert len(most.result) == 2**20
    too_many = await children.run(call("returns_many", b"1048577"))
    assert isinstance(too_many, Failed)
    assert too_many.type.endswith(".ResultTooLargeError")


async def test_a_function_that_is_not_there_is_a_failure(children: Children) -> None:
    failed = await children.run(call("nowhere"))
    assert isinstance(failed, Failed)
    assert failed.type == "builtins.AttributeError"


# -- death


@pytest.mark.parametrize(
    ("how", "exit_code"), [("kill", -signal.SIGKILL), ("exit", 7), ("segfault", -signal.SIGSEGV)]
)
async def test_a_child_that_dies_in_a_step_says_how_and_the_slot_goes_on(
    children: Children, how: str, exit_code: int
) -> None:
    lost = await children.run(call("dies", how.encode()))
    assert lost == ChildLost(exit_code, "died", begun=True)
    assert await value(children, "double", 4) == 8


async def test_a_child_killed_from_outside_is_lost_with_its_step(children: Children) -> None:
    told = Told()
    running = asyncio.create_task(children.run(call("sleeps"), told))
    os.kill(await told.number(), signal.SIGKILL)
    lost = await running
    assert lost == ChildLost(-signal.SIGKILL, "died", begun=True)
    assert str(lost) == "the child ended by SIGKILL"


async def test_a_child_that_died_idle_costs_no_step(children: Children) -> None:
    for _ in range(3):
        os.kill(await value(children, "pid"), signal.SIGKILL)  # perhaps seen before the next call, perhaps not
        assert await value(children, "double", 4) == 8


async def test_a_child_that_died_leaving_a_holder_of_its_pipe_is_lost_at_once(children: Children) -> None:
    told = Told()
    lost = await asyncio.wait_for(children.run(call("leaves_a_process", b"forked"), told), LONG_S / 2)
    assert lost == ChildLost(1, "died", begun=True)
    await gone(await told.number())


async def test_nonsense_in_the_pipe_costs_the_child_and_no_other(children: Children) -> None:
    lost = await asyncio.wait_for(children.run(call("writes_into_every_pipe")), LONG_S / 2)
    assert lost == ChildLost(-signal.SIGKILL, "died", begun=True)
    assert await value(children, "double", 4) == 8


async def test_a_lost_fork_server_costs_its_children_and_is_replaced(children: Children) -> None:
    told = Told()
    running = asyncio.create_task(children.run(call("leaves_a_process", b"stay"), told))
    grandchild = await told.number()
    child = psutil.Process(int(told.first.result().total))
    os.kill(child.ppid(), signal.SIGKILL)
    lost = await running
    assert isinstance(lost, ChildLost)
    assert lost.cause == "died"
    await gone(child.pid, grandchild)
    assert await value(children, "double", 4) == 8


# -- limits and cancelling


async def test_the_soft_limit_raises_in_the_step_which_may_clean_up(children: Children) -> None:
    outcome = await children.run(call("sleeps", soft_s=SHORT_S))
    assert isinstance(outcome, Done)
    assert outcome.result == b"cleaned up"
    failed = await children.run(call("leaves_a_process", b"stay", soft_s=SHORT_S))
    assert isinstance(failed, Failed)
    assert failed.type == "shared.children.outcomes.SoftTimeLimitError"


async def test_the_hard_limit_kills_the_step_and_all_that_it_started(children: Children) -> None:
    told = Told()
    stubborn = await children.run(call("sleeps", b"stubborn", soft_s=SHORT_S, hard_s=4 * SHORT_S))
    assert stubborn == ChildLost(-signal.SIGKILL, "hard_limit", begun=True)
    hard_s = 0.25
    while not told.first.done():  # a busy machine may start nothing within that
        hard_s *= 2
        await children.run(call("leaves_a_process", b"stay", hard_s=hard_s), told)
    await gone(await told.number())


async def test_a_cancelled_step_is_stopped_before_the_cancelling_returns(children: Children) -> None:
    told = Told()
    running = asyncio.create_task(children.run(call("sleeps"), told))
    pid = await told.number()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await value(children, "pid") == pid, "the child was free again"


async def test_a_step_that_did_not_hear_the_first_signal_is_stopped_by_the_next(children: Children) -> None:
    told = Told()
    running = asyncio.create_task(children.run(call("hears_late"), told))
    pid = await told.number()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await value(children, "pid") == pid, "it was killed"


async def test_the_soft_limit_is_raised_once_however_long_a_step_cleans_up(children: Children) -> None:
    outcome = await children.run(call("cleans_up_slowly", soft_s=SHORT_S))
    assert isinstance(outcome, Done), outcome
    assert outcome.result == b"cleaned up"


async def test_a_signal_that_comes_when_its_step_has_ended_is_for_no_other(children: Children) -> None:
    server = psutil.Process(await parent_of_a_child(children))
    server.suspend()  # nobody is signalled meanwhile
    try:
        naps = [asyncio.create_task(children.run(call("naps", soft_s=SHORT_S)))]
        await asyncio.wait(naps, timeout=0.4)
        naps.append(asyncio.create_task(children.run(call("naps"))))
        await asyncio.wait(naps[1:], timeout=0.1)
    finally:
        server.resume()
    outcomes = await asyncio.gather(*naps)
    assert all(isinstance(outcome, Done) for outcome in outcomes), outcomes


async def test_a_death_that_was_told_and_not_heard_yet_costs_no_fork_server(children: Children) -> None:
    pid = await value(children, "pid")
    forking: Any = children._forking
    death = forking._deaths[pid]
    os.kill(pid, signal.SIGKILL)
    assert select.select([forking._socket], [], [], LONG_S)[0]  # the loop stands still, and hears nothing
    forking._end_surely(death)
    assert not forking.lost
    assert await value(children, "double", 4) == 8


async def test_a_step_that_is_cancelled_before_it_began_is_stopped_too(children: Children) -> None:
    for _ in range(20):
        running = asyncio.create_task(children.run(call("sleeps")))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, LONG_S / 2)


async def test_a_step_that_will_not_stop_is_killed_after_the_grace() -> None:
    told = Told()
    async with Children(1, [STEPS], limits=Limits(cancel_grace_s=SHORT_S)) as children:
        running = asyncio.create_task(children.run(call("sleeps", b"stubborn"), told))
        pid = await told.number()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not is_alive(pid)


# -- recycling, memory, progress


async def test_a_child_is_retired_after_its_steps_or_its_memory() -> None:
    limits = Limits(steps_max=3, rss_bytes_max=200 * 2**20)
    async with Children(1, [STEPS], limits=limits) as children:
        pids = [await value(children, "pid") for _ in range(7)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
        outcome = await children.run(call("takes_memory", b"%d" % (220 * 2**20)))
        assert isinstance(outcome, Done)
        assert outcome.peak_rss_bytes > 220 * 2**20
        assert await value(children, "pid") not in pids
        await gone(*pids)


async def test_the_peak_of_memory_is_that_of_the_step_and_not_of_one_before(children: Children) -> None:
    large = await children.run(call("takes_memory", b"%d" % (100 * 2**20)))
    small = await children.run(call("takes_memory", b"0"))
    assert isinstance(large, Done)
    assert isinstance(small, Done)
    assert large.peak_rss_bytes > small.peak_rss_bytes + 90 * 2**20


async def test_progress_comes_while_the_step_runs_seldom_and_the_last_with_the_outcome(children: Children) -> None:
    seen: list[Progress] = []
    outcome = await children.run(call("reports_often", b"50000"), seen.append)
    assert isinstance(outcome, Done)
    assert outcome.progress == Progress(50_000, 50_000, "counting")
    assert 1 <= len(seen) < 500
    assert seen[0] == Progress(1, 50_000, "counting")


# -- where children live, and that none is left


async def test_a_child_inherits_nothing_harmful(children: Children) -> None:
    lives = await value(children, "where_it_lives")
    assert lives["group"] == lives["pid"]
    assert lives["initialised"] == [lives["pid"]]
    assert lives["stdin"] == "/dev/null"
    assert lives["default"] == [True, True, True]
    assert lives["blocked"] == 0
    assert lives["session_of_parent"]
    assert os.getsid(lives["pid"]) != os.getsid(0)
    assert len(lives["descriptors"]) == 4, "stdin, stdout, stderr and its pipe"


async def test_modules_that_cannot_be_imported_are_told_and_leave_no_process() -> None:
    before = set(psutil.Process().children())
    with pytest.raises(ChildStartError, match=r"steps cannot be imported: ModuleNotFoundError: .*nowhere"):
        await Children(1, ["tests.nowhere"]).__aenter__()
    assert set(psutil.Process().children()) <= before


async def test_a_fork_server_that_does_not_answer_is_given_up_in_time() -> None:
    limits = Limits(start_timeout_s=1.0)
    async with Children(1, [STEPS], limits=limits) as children:
        [server] = [one for one in psutil.Process().children() if one.pid == await parent_of_a_child(children)]
        os.kill(await value(children, "pid"), signal.SIGKILL)
        await gone(*children.pids)
        server.suspend()
        with suppress(ChildStartError):  # not raised where the death was not told any more
            await children.run(call("double"))
        assert await value(children, "double", 4) == 8
        assert not is_alive(server.pid)


async def parent_of_a_child(children: Children) -> int:
    return psutil.Process(await value(children, "pid")).ppid()


async def test_closing_leaves_no_process() -> None:
    told = Told()
    async with Children(2, [STEPS]) as children:
        idle = await value(children, "pid")
        running: asyncio.Task[Outcome] = asyncio.create_task(children.run(call("leaves_a_process", b"stay"), told))
        grandchild = await told.number()
        server = psutil.Process(idle).ppid()
    assert isinstance(await running, ChildLost)
    assert not any(is_alive(pid) for pid in (idle, grandchild, server, int(told.first.result().total)))


PARENT = f"""
import asyncio, os, psutil
from shared.children.children import Call, Children

async def main():
    async with Children(2, ["{STEPS}"]) as children:
        def told(progress):
            child = psutil.Process(int(progress.total))
            print(int(progress.current), child.pid, child.ppid(), flush=True)
        step = Call(target="{STEPS}:leaves_a_process", payload=b"stay", soft_s=60, hard_s=60)
        await children.run(step, told)

asyncio.run(main())
"""


async def test_a_killed_parent_takes_the_fork_server_its_children_and_theirs_along() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(parent.stdout.readline(), LONG_S)).split()]
    assert all(is_alive(pid) for pid in pids)
    assert len(pids) == 3
    parent.kill()
    await asyncio.wait_for(parent.wait(), LONG_S / 2)  # until nobody holds its output
    await gone(*pids)
