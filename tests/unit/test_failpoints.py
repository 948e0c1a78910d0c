"""Fail points: what they are told, when they act, and that nothing is there when nobody asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from shared import failpoints
from shared.errors import PermanentError, TransientError
from shared.failpoints import FailPoint, FailPoints


def told(text: str) -> FailPoints:
    made = FailPoints.told(text)
    assert made is not None
    return made


def acts(points: FailPoints, place: str, passes: int) -> list[int]:
    """The passes, from 1, at which the place raises."""
    raised = []
    for number in range(1, passes + 1):
        try:
            points.reach(place)
        except PermanentError:
            raised.append(number)
    return raised


def test_nothing_is_there_unless_somebody_asks() -> None:
    assert FailPoints.told("") is None
    assert FailPoints.told(" ; ") is None


def test_a_list_of_points_is_read() -> None:
    assert failpoints.parse("relay.after_publish=kill@20; handler:order.placed=raise*3") == (
        FailPoint("relay.after_publish", "kill", 1, 20),
        FailPoint("handler:order.placed", "raise", 3, 1),
    )


@pytest.mark.parametrize(
    "text",
    [
        "pipeline.nowhere=kill",
        "pipeline.after_effect",
        "pipeline.after_effect=explode",
        "pipeline.after_effect=kill*0",
        "pipeline.after_effect=kill@0",
        "pipeline.after_effect=kill@2*1",
        "handler:=raise",
        "pipeline.after_effect:=kill",
        "relay.after_publish:order=kill",
        "handler:order.placed:order=kill",
        "handler:order.placed=raise,relay.after_publish=kill",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no fail point|no place"):
        FailPoints.told(text)


def test_a_raise_happens_every_time_unless_it_is_bounded() -> None:
    assert acts(told("handler:order.placed=raise"), "handler:order.placed", 3) == [1, 2, 3]
    assert acts(told("handler:order.placed=raise*2@3"), "handler:order.placed", 6) == [3, 4]


def test_a_place_may_be_meant_for_the_subscriptions_of_one_channel() -> None:
    text = "pipeline.after_effect:share=raise; relay.after_publish=raise"
    share, user = (FailPoints.told(text, channel) for channel in ("share", "user"))
    assert share is not None
    assert user is not None
    assert acts(share, "pipeline.after_effect", 2) == [1, 2]
    assert acts(user, "pipeline.after_effect", 2) == []
    assert acts(user, "relay.after_publish", 2) == [1, 2]
    assert FailPoints.told("pipeline.after_effect:share=kill", "user") is None
    assert FailPoints.told("pipeline.after_effect:share=kill") is None


def test_other_places_are_not_touched() -> None:
    assert acts(told("handler:order.placed=raise"), "handler:order.paid", 3) == []


def test_a_transient_error_can_be_asked_for() -> None:
    with pytest.raises(TransientError):
        told("handler:order.placed=raise-transient").reach("handler:order.placed")


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_the_process_ends_or_stops_itself_at_its_second_pass(action: str, number: signal.Signals) -> None:
    program = (
        "from shared.failpoints import FailPoints\n"
        f"points = FailPoints.told('pipeline.after_commit={action}@2')\n"
        "points.reach('pipeline.after_commit'); print('once', flush=True)\n"
        "points.reach('pipeline.after_commit'); print('twice', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "once\n"
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if number is signal.SIGKILL:
            assert os.WTERMSIG(status) == signal.SIGKILL
            assert process.stdout.read() == ""
        else:
            assert os.WSTOPSIG(status) == signal.SIGSTOP
            process.send_signal(signal.SIGCONT)
            assert process.stdout.readline() == "twice\n", "it goes on where it stood"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
