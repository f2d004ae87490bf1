"""The arithmetic of the benchmarks: ages of records, percentiles, knees."""

from __future__ import annotations

import argparse

import pytest

from benchmarks.bench_scale import knee
from benchmarks.report import Spread, chosen
from benchmarks.shapes import SHAPES
from benchmarks.steady import ages, percentile


def test_the_age_of_a_record_is_the_time_from_its_stamp_to_the_commit_behind_it() -> None:
    stamps = {0: [(2, 10.0), (5, 11.0)], 1: [(4, 10.5)]}
    # The first commit covers the first stamp and one record of the second.
    seen = {0: [(3, 11.5), (5, 13.0)], 1: [(4, 10.75)]}

    assert ages(stamps, seen, 0.0, 99.0) == [(0.25, 4), (0.5, 1), (1.5, 2), (2.0, 2)]


def test_records_outside_the_window_or_without_a_commit_have_no_age() -> None:
    stamps = {0: [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]}
    seen = {0: [(3, 5.0)]}

    assert ages(stamps, seen, 2.0, 9.0) == [(2.0, 1), (3.0, 1)]


def test_a_percentile_counts_records_and_not_groups_of_them() -> None:
    found = [(0.1, 98), (0.2, 1), (9.0, 1)]

    assert [percentile(found, share) for share in (0.5, 0.98, 0.99, 1.0)] == [0.1, 0.1, 0.2, 9.0]


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no record was committed"):
        percentile([], 0.5)


def test_the_knee_is_the_smallest_setting_within_five_percent_of_the_best() -> None:
    line = {name: Spread.of([rate]) for name, rate in {"1": 50.0, "10": 96.0, "100": 100.0, "1000": 99.0}.items()}

    assert knee(line) == "10"


def test_a_spread_says_its_range_where_there_is_one() -> None:
    assert Spread.of([3.0, 1000.0, 2.0]).text() == "3 (2 to 1,000)"
    assert Spread.of([3.0]).text(1) == "3.0"


def test_an_unknown_name_in_a_list_is_named() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="'b' is none of a, c"):
        chosen("a,b", ["a", "c"])


@pytest.mark.parametrize(
    ("shape", "lowest", "highest"), [("tiny", 35, 45), ("standard", 165, 195), ("wide", 1900, 2100)]
)
def test_shapes_have_the_size_they_are_named_for(shape: str, lowest: int, highest: int) -> None:
    records = list(SHAPES[shape].records(200))

    assert lowest <= sum(map(len, records)) / len(records) <= highest
