"""What a run says on a terminal, by a clock that is set by hand."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import cast

import pytest
from rich.console import Console

from batcher.cli.support.progress import RunMeter, RunProgress
from batcher.cli.support.spans import plural, span
from batcher.cli.support.terminal import RefusedFields, closing, picture
from batcher.engine.pipeline import Pipeline
from batcher.records import Partition
from batcher.settings import Settings
from batcher.telemetry import logs
from batcher.telemetry.status import Counts, PartitionStatus, Status
from batcher.testing.clock import ManualClock


class SteppedPipeline:
    def __init__(self) -> None:
        self.now = Status("running")

    def status(self) -> Status:
        return self.now

    def at(self, written: int, lag: int | None, waiting: str = "") -> None:
        places = {Partition("t", 0): PartitionStatus(lag=lag)}
        self.now = replace(self.now, counts=Counts(written=written), partitions=places, waiting_for=waiting)


def meter(*, ends: bool) -> tuple[SteppedPipeline, ManualClock, RunMeter]:
    pipeline, clock = SteppedPipeline(), ManualClock()
    return pipeline, clock, RunMeter(cast("Pipeline", pipeline), ends=ends, clock=clock)


def test_the_rate_is_that_of_the_last_seconds_and_not_the_average() -> None:
    pipeline, clock, look = meter(ends=False)
    for second in range(60):
        pipeline.at(min(second, 30) * 1000, None)
        now = look.look()
        if second == 20:
            assert now.rate == pytest.approx(1000)
        clock.advance(1.0)
    assert now.rate == 0.0


def test_the_lag_goes_down_between_two_counts_of_the_client() -> None:
    pipeline, clock, look = meter(ends=False)
    pipeline.at(0, 1000)
    look.look()
    clock.advance(1.0)
    pipeline.at(400, 1000)
    assert look.look().lag == 600
    pipeline.at(400, 650)
    assert look.look().lag == 650


def test_a_run_with_an_end_has_a_share_that_only_grows_whatever_comes_in() -> None:
    pipeline, clock, look = meter(ends=True)
    shares = []
    for written, lag in ((0, 1000), (500, 700), (900, 400), (1000, 400)):
        pipeline.at(written, lag)
        shares.append(look.look().share)
        clock.advance(1.0)
    assert shares == [0.0, 0.5, 0.9, 1.0]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_view_is_whole_at_every_width(width: int) -> None:
    waiting = "waiting for the target: http://clickhouse.internal:8123/default.events does not answer: refused"
    now = RunProgress("draining", 1_234_567, 1_300_000, 98_765.0, 1_234, 4_321_098, 43.7, 0.3, waiting)
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115, PTH123
    with console.file:
        console.print(picture(now, "stopping within 25 s; Ctrl-C again ends at once, nothing is lost"))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= width
    words = shown.replace("\u00a0", " ").split()
    for text in (
        waiting,
        "98,765 rows/s",
        "lag 4,321,098",
        "ETA 44 s",
        "1,234 dead letters",
        "Ctrl-C again ends at once,",
    ):
        assert all(word in words for word in text.split()), text


FACTS = {
    "consumed": 1_000_000,
    "written": 999_000,
    "dead_lettered": 1000,
    "skipped": 0,
    "duplicates_suppressed": 0,
    "released": 0,
    "seconds": 12.0,
    "dead_letter_reasons": {"type": 900, "syntax": 100},
    "unknown_fields": {},
}


def test_the_end_is_one_sentence_that_says_where_the_dead_letters_are() -> None:
    fields = RefusedFields()
    said = {"event": "records_refused", "reason": "type", "field": "user_id", "count": 5}
    fields.emit(logging.LogRecord("x", 30, "", 0, said, None, None))
    settings = Settings(dlq={"path": "dead letters"})
    assert closing(FACTS, settings, fields) == (
        "999,000 rows in 12 s, 1,000 dead letters: most `type` in `user_id`; "
        "see them with `batcher dlq ls --dlq.path 'dead letters'`"
    )


def test_the_sentence_says_what_was_there_and_what_is_not_stored() -> None:
    facts = {**FACTS, "dead_lettered": 0, "duplicates_suppressed": 7, "unknown_fields": {"city": 3, "zip": 1}}
    assert closing(facts, Settings(), RefusedFields()) == (
        "999,000 rows in 12 s, 7 were there already; not stored: 2 fields, `city` (3 rows) and 1 more"
    )


def test_a_line_is_broken_at_blanks_only_and_colours_take_no_room() -> None:
    text = "\x1b[1mone\x1b[0m two three reason='four five'\n  traceback stays as it is, however long its lines are"
    broken, *rest = logs.wrapped(text, 16).splitlines()[:3]
    assert broken == "\x1b[1mone\x1b[0m two three"
    assert rest[0] == "  reason='four"
    assert logs.wrapped(text, 16).endswith("however long its lines are")
    assert logs.wrapped(text, 0) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.4, "0.4 s"), (59, "59 s"), (65, "1 min"), (7500, "2 h 5 min"), (90_000, "1 d 1 h")],
)
def test_spans_have_two_units_at_most(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_counts_have_the_ending_of_their_number() -> None:
    assert [plural(1, "row"), plural(2000, "row"), plural(3, "batch")] == ["1 row", "2,000 rows", "3 batches"]
