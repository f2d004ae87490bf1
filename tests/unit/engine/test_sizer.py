"""A target that cannot merge as fast as it is written to gets fewer and larger batches, and only until it can."""

import pytest

from batcher.core.sizing import CEILING, GROW_EVERY_S, LOOK_EVERY_S, SHRINK_EVERY_S
from batcher.engine.sizer import Sizer
from batcher.errors import SinkOverwhelmed, SinkUnavailable
from batcher.testing.clock import ManualClock
from batcher.testing.formats import NUMBERS
from batcher.testing.sinks import ScriptedSink

FULL = SinkOverwhelmed("too many parts")


class WeighedSink(ScriptedSink):
    """A sink that says how loaded it is."""

    load = 0.0
    broken = False
    questions = 0

    def pressure(self) -> float:
        self.questions += 1
        if self.broken:
            raise SinkUnavailable("no answer")
        return self.load


class Bench:
    def __init__(self, *, weighs: bool = True) -> None:
        self.sink = WeighedSink(NUMBERS) if weighs else ScriptedSink(NUMBERS)
        self.clock = ManualClock()
        self.told: list[int] = []
        target = self.sink if isinstance(self.sink, WeighedSink) else None
        self.sizer = Sizer(target, self.told.append, self.clock)

    def write_for(self, seconds: float, load: float = 0.0) -> None:
        if isinstance(self.sink, WeighedSink):
            self.sink.load = load
        until = self.clock() + seconds
        while self.clock() < until:
            self.clock.advance(1.0)
            self.sizer.wrote()


def test_a_refusal_for_too_many_parts_doubles_the_batches_at_once_and_then_step_by_step_up_to_a_ceiling() -> None:
    bench = Bench()
    bench.sizer.failed(FULL)
    bench.sizer.failed(FULL)
    assert bench.told == [2]
    for _ in range(10):
        bench.clock.advance(GROW_EVERY_S)
        bench.sizer.failed(FULL)

    assert bench.told == [2, 4, 8, CEILING]


def test_other_failures_change_no_batch() -> None:
    bench = Bench()
    bench.sizer.failed(SinkUnavailable("away"))

    assert bench.told == []


def test_rising_part_counts_are_answered_before_the_target_refuses_anything() -> None:
    bench = Bench()
    bench.write_for(2 * LOOK_EVERY_S, load=0.4)
    assert bench.told == []
    bench.write_for(2 * LOOK_EVERY_S, load=0.7)

    assert bench.told == [2, 4]


def test_batches_shrink_back_slowly_once_the_target_has_recovered_and_not_before() -> None:
    bench = Bench()
    bench.write_for(2 * LOOK_EVERY_S, load=0.7)
    bench.write_for(2 * SHRINK_EVERY_S, load=0.3)
    assert bench.told == [2, 4]
    bench.write_for(2 * LOOK_EVERY_S, load=0.1)
    assert bench.told == [2, 4, 2]
    bench.write_for(3 * SHRINK_EVERY_S, load=0.1)

    assert bench.told == [2, 4, 2, 1]


@pytest.mark.parametrize("weighs", [True, False])
def test_a_target_that_cannot_be_asked_is_taken_for_recovered_only_if_it_never_could(weighs: bool) -> None:
    bench = Bench(weighs=weighs)
    if isinstance(bench.sink, WeighedSink):
        bench.sink.broken = True
    bench.sizer.failed(FULL)
    bench.write_for(2 * SHRINK_EVERY_S)

    assert bench.told == ([2] if weighs else [2, 1])


def test_the_target_is_asked_now_and_then_and_not_for_every_batch() -> None:
    bench = Bench()
    bench.write_for(4 * LOOK_EVERY_S)

    assert isinstance(bench.sink, WeighedSink)
    assert bench.sink.questions == 4
