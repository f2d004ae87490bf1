"""A group that waits says so: what for, how long at most, and what avoids it."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from batcher.sources.kafka.wait import AGAIN_AFTER_S, FIRST_AFTER_S, Wait
from batcher.testing.clock import ManualClock

SESSION_S = 45.0


def said(wait: Wait, clock: ManualClock, *pauses_s: float) -> list[Any]:
    with capture_logs() as lines:
        for pause_s in pauses_s:
            clock.advance(pause_s)
            wait.look()
    return lines


def begun(clock: ManualClock, instance: str | None = None) -> Wait:
    wait = Wait("g", SESSION_S, instance, clock)
    wait.begin()
    return wait


def test_a_wait_for_a_dead_member_is_said_with_its_end_and_the_setting_that_avoids_it() -> None:
    clock = ManualClock()

    [line] = said(begun(clock), clock, FIRST_AFTER_S)

    assert line["event"] == "waiting_for_partitions"
    assert (line["waited_s"], line["at_most_s"]) == (3, SESSION_S)
    assert "died" in line["reason"]
    assert "--kafka.instance" in line["hint"]


def test_it_is_said_again_now_and_then_until_a_dead_member_is_missed_and_never_after() -> None:
    clock = ManualClock()

    lines = said(begun(clock), clock, *[1.0] * 300)

    assert [line["event"] for line in lines] == ["waiting_for_partitions"] * 4 + ["no_partitions"]
    assert [line["waited_s"] for line in lines] == [3, 18, 33, 48, 63]


@pytest.mark.parametrize("after_s", [0.5, FIRST_AFTER_S + 1])
def test_partitions_that_come_end_it(after_s: float) -> None:
    clock = ManualClock()
    wait = begun(clock)
    said(wait, clock, after_s)

    wait.over()

    assert said(wait, clock, AGAIN_AFTER_S, AGAIN_AFTER_S) == []


def test_an_instance_needs_no_hint() -> None:
    clock = ManualClock()

    [line] = said(begun(clock, "one"), clock, FIRST_AFTER_S)

    assert "hint" not in line
