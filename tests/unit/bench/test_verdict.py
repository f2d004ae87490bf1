"""From figures to a bottleneck and advice: each rule on figures made for it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from batcher.bench.figures import Cut, Figures, Run, Setup, Stage
from batcher.bench.report import Tried, facts, lines
from batcher.bench.verdict import LARGE_ROWS, judged
from batcher.cli.verbs.run import parser
from batcher.options import Advice, Section
from batcher.records import Trigger
from batcher.settings import load
from sinks.clickhouse.settings import ClickHouse
from sinks.parquet.settings import Parquet


def told_by(section: Section) -> dict[str, Any]:
    return {"faster": tuple(section.faster()), "for_large_batches": section.for_large_batches}


SETUP = Setup(
    topics=("events",),
    live=False,
    partitions=4,
    sink="parquet",
    keeps=True,
    scratch=True,
    target="/data/events",
    delivery="exactly-once",
    max_rows=100_000,
    max_bytes=24 << 20,
    max_wait_s=1.0,
    memory_bytes=48 << 20,
    merges=False,
    may_merge=False,
    **told_by(Parquet()),
    cores=2,
)

DECODING = {"fetch_s": 3.0, "fetch_cpu_s": 2.8, "room_s": 6.5, "decode_s": 9.5, "write_s": 4.0}
WRITING = {"fetch_s": 3.0, "fetch_cpu_s": 2.8, "room_s": 6.5, "decode_s": 4.0, "write_s": 9.5}
FETCHING = {"fetch_s": 9.8, "fetch_cpu_s": 9.0, "room_s": 0.1, "decode_s": 7.0, "write_s": 4.0}
WAITING = {"fetch_s": 9.8, "fetch_cpu_s": 1.0, "room_s": 0.0, "decode_s": 2.0, "write_s": 1.0}


def cuts(rows: int, trigger: Trigger, count: int = 10, row_bytes: int = 200) -> tuple[Cut, ...]:
    return (*(Cut(rows, rows * row_bytes, trigger) for _ in range(count)), Cut(7, 1400, "end"))


def run(times: dict[str, float], batches: tuple[Cut, ...] = cuts(100_000, "rows"), **changes: object) -> Run:
    made = Run(rows=1_000_000, nbytes=200_000_000, seconds=10.0, cpu_s=18.0, cuts=batches, commits=11, **times)  # type: ignore[arg-type]
    return replace(made, **changes)  # type: ignore[arg-type]


def figures(one: Run, setup: Setup = SETUP, /, **changes: object) -> Figures:
    stages = {
        "consume": Stage("consume", 1_000_000, 0, 2.0, 1.9),
        "fetch": Stage("fetch", 1_000_000, 200_000_000, 3.0, 2.9),
        "decode": Stage("decode", 500_000, 100_000_000, 0.7, 1.0),
        "write": Stage("write", 500_000, 100_000_000, 0.2, 0.2),
    }
    return Figures(replace(setup, **changes), stages, [one], 300 << 20)  # type: ignore[arg-type]


def slow_broker(**changes: object) -> Figures:
    measured = figures(run(WAITING), SETUP, **changes)
    return replace(measured, stages={**measured.stages, "fetch": Stage("fetch", 1_000_000, 200_000_000, 9.0, 2.9)})


def flags(one: Figures) -> list[tuple[str, ...]]:
    return [advice.flags for advice in judged(one).advice if advice.flags]


def texts(one: Figures) -> str:
    return " / ".join(advice.text for advice in judged(one).advice)


def test_the_stage_that_is_busy_most_of_the_time_is_the_bottleneck() -> None:
    assert judged(figures(run(DECODING))).limit == "decode"
    assert judged(figures(run(WRITING))).limit == "write"
    assert judged(figures(run(FETCHING))).limit == "fetch"


def test_reading_that_mostly_waits_in_the_pipeline_and_alone_is_the_brokers_doing() -> None:
    assert judged(slow_broker()).limit == "broker"
    assert "waited for records 88% of the time" in judged(slow_broker()).text
    # Alone it computes: what it waits for in the pipeline is the other threads.
    assert judged(figures(run(WAITING))).limit == "fetch"
    live = replace(figures(run(WAITING), live=True), stages={})
    assert judged(live).limit == "broker"


def test_the_verdict_names_the_cost_and_how_long_reading_waited() -> None:
    text = judged(figures(run(DECODING))).text
    assert text == "decode: 1.40 us a row alone, busy 95% of the time; reading waited for room 65% of the time"
    assert "0.20 of what consume() alone does" in judged(figures(run(FETCHING))).text


def test_made_up_records_are_never_waited_for() -> None:
    verdict = judged(figures(run(FETCHING), topics=()))
    assert verdict.limit == "decode"
    assert "waited" not in verdict.text


@pytest.mark.parametrize(
    ("trigger", "rows", "changes", "expected"),
    [
        ("age", 4_000, {}, ("--batch.max-wait", "5s")),
        ("age", 50, {}, ("--batch.max-wait", "30s")),
        ("age", 4_000, {"keeps": True, "may_merge": True}, ("--batch.merge-partitions",)),
        ("age", 4_000, {"keeps": True, "may_merge": True, "merges": True}, ("--batch.max-wait", "5s")),
        ("age", 4_000, {"keeps": True, "may_merge": True, "partitions": 1}, ("--batch.max-wait", "5s")),
        ("rows", 5_000, {"max_rows": 5_000}, ("--batch.max-rows", "100000")),
        ("bytes", 5_000, {"max_bytes": 1 << 20, "memory_bytes": 8 << 20}, None),
        ("memory", 3_000, {}, ("--batch.memory", "192MiB")),
        ("memory", 3_000, {"keeps": True, "may_merge": True}, ("--batch.merge-partitions",)),
    ],
)
def test_small_batches_are_made_larger_by_what_cuts_them(
    trigger: Trigger, rows: int, changes: dict[str, object], expected: tuple[str, ...] | None
) -> None:
    expected = expected or ("--batch.max-bytes", "64MiB", "--batch.memory", "128MiB")
    assert flags(figures(run(DECODING, cuts(rows, trigger)), SETUP, **changes)) == [expected]


@pytest.mark.parametrize(
    ("batches", "changes"),
    [
        (cuts(20_000, "age"), {}),
        (cuts(4_000, "age", row_bytes=10_000), {}),
        (cuts(4_000, "age"), {"keeps": False}),
        (cuts(4_000, "age"), {"max_wait_s": 60.0}),
        (cuts(4_000, "memory"), {"memory_bytes": 4 << 30}),
    ],
    ids=["enough rows", "enough bytes", "nothing is written", "waits long already", "has the memory"],
)
def test_batches_that_are_large_enough_are_left_alone(batches: tuple[Cut, ...], changes: dict[str, object]) -> None:
    assert flags(figures(run(DECODING, batches), SETUP, **changes)) == []


def test_batches_cut_because_the_run_ended_say_nothing() -> None:
    ended = (Cut(100_000, 20_000_000, "rows"), *(Cut(10, 2000, "end") for _ in range(256)))
    assert flags(figures(run(DECODING, ended))) == []


@pytest.mark.parametrize(
    ("compression", "faster"),
    [("zstd:9", "zstd:1"), ("gzip", "zstd:1"), ("zstd", "lz4"), ("zstd:1", "lz4"), ("lz4", ""), ("none", "")],
)
def test_files_that_limit_get_a_faster_codec_while_there_is_one(compression: str, faster: str) -> None:
    expected = [("--parquet.compression", faster)] if faster else []
    assert flags(figures(run(WRITING), **told_by(Parquet(compression=compression)))) == expected
    assert flags(figures(run(DECODING), **told_by(Parquet(compression=compression)))) == []


def test_files_in_many_directories_are_named() -> None:
    by_day = told_by(Parquet(partition_by=("country", "day")))
    assert "every directory of country,day" in texts(figures(run(WRITING), **by_day))


def test_inserts_that_limit_get_larger_batches_once_and_then_the_server_is_to_blame() -> None:
    table = replace(SETUP, keeps=True, max_rows=30_000, **told_by(ClickHouse()))
    found = judged(figures(run(WRITING, cuts(30_000, "rows")), table))
    assert found.to_try == Advice("batches have 30,000 rows: larger ones", ("--batch.max-rows", str(LARGE_ROWS)))
    assert "system.query_log" in found.advice[1].text
    assert len(flags(figures(run(WRITING, cuts(4_000, "age")), table))) == 1


def test_columns_that_are_slow_to_decode_are_named_where_decoding_limits() -> None:
    assert "labels, raw" in texts(figures(run(DECODING), slow_columns=("labels", "raw")))
    assert "labels" not in texts(figures(run(FETCHING), slow_columns=("labels", "raw")))


def test_bad_records_are_worth_a_word_where_most_batches_have_one_and_decoding_limits() -> None:
    assert "bad" not in texts(figures(run(DECODING, refused={"syntax": 5})))
    assert "bad records in most batches (syntax 6)" in texts(figures(run(DECODING, refused={"syntax": 6})))
    assert "bad" not in texts(figures(run(WRITING, refused={"syntax": 6})))
    most = figures(run(WRITING, refused={"missing": 900_000, "syntax": 1}))
    assert judged(most).advice[0].text.startswith("most records do not fit the target (missing 900,000, syntax 1)")


def test_a_machine_that_is_busy_with_other_things_is_said_first() -> None:
    measured = figures(run(DECODING))
    starved = replace(measured, stages={**measured.stages, "decode": Stage("decode", 10, 10, 4.0, 1.0)})
    assert judged(starved).advice[0].text.endswith("decoding alone got 25% of a core")
    assert "measure again" not in texts(measured)


def test_a_link_that_limits_is_read_further_ahead_unless_that_is_set_already() -> None:
    assert flags(slow_broker())[0][:2] == ("-X", "queued.max.messages.kbytes=65536")
    assert flags(slow_broker(given=frozenset({"fetch.max.bytes"}))) == []
    assert "keeps up" in texts(slow_broker(live=True))


def test_more_processes_are_advised_only_where_they_help() -> None:
    assert "start up to 4 with the same -g" in texts(figures(run(FETCHING), cores=8))
    assert "2 cores are what one uses" in texts(figures(run(FETCHING)))
    assert "one partition is read by one process" in texts(figures(run(FETCHING), partitions=1, cores=8))
    assert "process" not in texts(figures(run(FETCHING), topics=(), cores=8))


def test_there_is_always_something_said() -> None:
    assert texts(figures(run(DECODING), topics=())) == "nothing to change: no setting stands in the way"


def test_advice_can_be_given_back_as_flags() -> None:
    table = replace(SETUP, keeps=True, may_merge=True, **told_by(ClickHouse()))
    for one in (
        slow_broker(),
        figures(run(WRITING)),
        figures(run(DECODING, cuts(4_000, "age"))),
        figures(run(DECODING, cuts(4_000, "bytes"))),
        figures(run(DECODING, cuts(4_000, "memory"))),
        figures(run(DECODING, cuts(4_000, "rows"))),
        figures(run(DECODING, cuts(4_000, "age")), table),
    ):
        for words in flags(one):
            load(parser(), list(words), {})


def test_a_change_that_makes_less_than_the_spread_made_no_difference() -> None:
    advice = Advice("larger", ("--batch.max-rows", "9"))
    outcomes = [
        Tried(advice, run(DECODING, seconds=seconds), (90_000.0, 110_000.0), 100_000.0).outcome
        for seconds in (8.0, 9.5, 10.5, 12.0)
    ]
    assert outcomes == ["faster", "no difference", "no difference", "slower"]


def test_the_report_holds_the_same_for_people_and_for_programs() -> None:
    slow, fast = run(DECODING, seconds=12.5), run(DECODING, seconds=8.0, refused={"syntax": 3})
    middle = run(DECODING, refused={"syntax": 3})
    measured = replace(figures(middle), runs=[fast, slow, middle])
    verdict = judged(measured)
    tried = Tried(Advice("x", ("--batch.max-rows", "9")), fast, measured.spread, measured.typical.rows_per_second)
    text = "\n".join(lines(measured, verdict, tried))
    for part in (
        "1,000,000 records of events, 4 partitions, 200 bytes each; /data/events: written to a copy",
        "3 runs, 80,000 to 125,000, 0.20 of consume",
        "fetch busy 28%, waiting 2%, out of room 65%; decode busy 95%, write busy 40%",
        "11, 100,000 rows and 19.1 MiB in the middle one; cut by rows 10, end 1",
        "11 were asked for, none was made",
        "3 records, counted and thrown away: syntax 3",
        verdict.text,
        "--batch.max-rows 9: 125,000 rows/s, 1.25 of the median: no difference",
    ):
        assert part in text
    found = json.loads(json.dumps(facts(measured, verdict, tried, {"versions": {}})))
    assert found["pipeline"]["rows_per_second"] == 100_000
    assert found["pipeline"]["of_consume"] == 0.2
    assert found["bottleneck"] == {"stage": "decode", "text": verdict.text}
    assert found["stages"]["decode"]["us_per_row"] == 1.4
    assert found["tried"]["outcome"] == "no difference"
