"""What the functions of `--parquet.partition-by` promise: Iceberg's values, and a directory that one row decides."""

from __future__ import annotations

import datetime as dt
import struct
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.errors import ConfigurationError, RowsRejected
from sinks.parquet import hive
from sinks.parquet.directory import rules_of, separated
from sinks.parquet.function import known_zone
from sinks.parquet.hive import DEFAULT, split
from sinks.parquet.murmur import LONGEST, hash_bytes, hash_longs, hash_one
from sinks.parquet.options import ParquetOptions

UTC = dt.UTC
NOON = dt.datetime(2017, 11, 16, 22, 31, 8)  # noqa: DTZ001 - a timestamp without a zone
MARK = 1_000_001
"""A number of buckets that keeps most of a hash."""


def directories(values: Any, kind: pa.DataType, *texts: str, zone: str = "UTC") -> list[str]:
    """Return the directory of each value, of a column named `c`."""
    table = pa.table({"c": pa.array(values, kind), "row": range(len(values))})
    found = {}
    for part in split(table, rules_of(texts, zone)):
        assert part.table.column_names == ["c", "row"]  # the column stays in the file
        found.update(dict.fromkeys(part.table["row"].to_pylist(), part.directory))
    return [found[row] for row in range(len(values))]


def value(text: str, one: Any, kind: pa.DataType, zone: str = "UTC") -> str:
    (found,) = directories([one], kind, text, zone=zone)
    return found.partition("=")[2]


@pytest.mark.parametrize(
    ("one", "kind", "hashed"),
    [
        # The table of hashes in appendix B of Iceberg's table specification.
        (34, pa.int32(), 2017239379),
        (34, pa.int64(), 2017239379),
        (34, pa.uint8(), 2017239379),
        (34, pa.uint64(), 2017239379),
        (Decimal("14.20"), pa.decimal128(9, 2), -500754589),
        (dt.date(2017, 11, 16), pa.date32(), -653330422),
        (dt.date(2017, 11, 16), pa.date64(), -653330422),
        (dt.time(22, 31, 8), pa.time32("s"), -662762989),
        (dt.time(22, 31, 8), pa.time64("us"), -662762989),
        (dt.time(22, 31, 8), pa.time64("ns"), -662762989),
        (NOON, pa.timestamp("s"), -2047944441),
        (NOON, pa.timestamp("us"), -2047944441),
        (NOON.replace(tzinfo=UTC), pa.timestamp("ms", "UTC"), -2047944441),
        (NOON.replace(tzinfo=UTC), pa.timestamp("us", "America/Los_Angeles"), -2047944441),
        (NOON.replace(microsecond=1), pa.timestamp("us"), -1207196810),
        (1510871468000001001, pa.timestamp("ns"), -1207196810),
        ("iceberg", pa.string(), 1210000089),
        ("iceberg", pa.large_string(), 1210000089),
        ("iceberg", pa.string_view(), 1210000089),
        ("iceberg", pa.dictionary(pa.int8(), pa.string()), 1210000089),
        (UUID("f79c3e09-677c-4bbd-a479-3f349cb785e7").bytes, pa.binary(16), 1488055340),
        (b"\x00\x01\x02\x03", pa.binary(4), -188683207),
        (b"\x00\x01\x02\x03", pa.binary(), -188683207),
    ],
    ids=str,
)
def test_a_bucket_is_that_of_the_iceberg_specification(one: object, kind: pa.DataType, hashed: int) -> None:
    assert value(f"bucket(c, {MARK})", one, kind) == str((hashed & 0x7FFFFFFF) % MARK)


@given(st.lists(st.none() | st.binary(max_size=40) | st.binary(min_size=LONGEST - 2, max_size=LONGEST + 6)))
@settings(deadline=None)
def test_the_hash_of_bytes_in_a_column_is_that_of_the_bytes_alone(values: list[bytes | None]) -> None:
    expected = [None if one is None else hash_one(one) for one in values]
    assert hash_bytes(pa.array(values, pa.binary())).to_pylist() == expected
    # A slice has its own beginning.
    assert hash_bytes(pa.array([b"before", *values], pa.binary()).slice(1)).to_pylist() == expected


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
@settings(deadline=None)
def test_the_hash_of_numbers_is_that_of_their_eight_bytes(values: list[int | None]) -> None:
    expected = [None if one is None else hash_one(struct.pack("<q", one)) for one in values]
    assert hash_longs(pa.array([7, *values], pa.int64()).slice(1)).to_pylist() == expected


AT = dt.datetime(2026, 11, 28, 13, 59, 59, 999_000, UTC)


@pytest.mark.parametrize("kind", [pa.timestamp("ms", "UTC"), pa.timestamp("ns", "Asia/Tokyo")], ids=str)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year(c)", "c_year=2026"),
        ("month(c)", "c_month=2026-11"),
        ("day(c)", "c_day=2026-11-28"),
        ("hour(c)", "c_hour=2026-11-28-13"),
        ("hour(c) as hour", "hour=2026-11-28-13"),
        ("day(c) as dt,hour(c) as hour", "dt=2026-11-28/hour=13"),
        ("day(c),hour(c)", "c_day=2026-11-28/c_hour=2026-11-28-13"),
        ("YEAR( c ) AS y, month(c) as m, day(c) as d, hour(c) as h", "y=2026/m=11/d=28/h=13"),
        ("month(c) as m, hour(c) as h", "m=2026-11/h=2026-11-28-13"),
    ],
)
def test_times_are_named_as_documented(text: str, expected: str, kind: pa.DataType) -> None:
    (found,) = directories([AT], kind, *separated(text))  # type: ignore[misc]
    assert found == expected


def test_a_leading_underscore_is_not_part_of_a_directory_that_readers_would_ignore() -> None:
    assert [rule.name for rule in rules_of(["day(_timestamp)", "hour(_timestamp)"])] == [
        "timestamp_day",
        "timestamp_hour",
    ]


@pytest.mark.parametrize(
    ("one", "text", "expected"),
    [
        (dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), "hour(c)", "1969-12-31-23"),
        (dt.datetime(1, 1, 1, tzinfo=UTC), "hour(c)", "0001-01-01-00"),
        (dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC), "hour(c)", "9999-12-31-23"),
        (dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC), "year(c)", "9999"),
        (None, "day(c)", DEFAULT),
    ],
)
def test_times_at_the_ends_have_their_own_directory(one: object, text: str, expected: str) -> None:
    assert value(text, one, pa.timestamp("us", "UTC")) == expected


def test_dates_have_days_and_no_hours() -> None:
    assert value("day(c)", dt.date(2026, 1, 31), pa.date32()) == "2026-01-31"
    assert value("month(c)", dt.date(1969, 1, 31), pa.date64()) == "1969-01"
    problem = hive.unfit(pa.schema([("c", pa.date32())]), rules_of(["hour(c)"]))
    assert problem == "column 'c' is date32[day]; hour takes a timestamp"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_time_without_a_year_of_four_digits_is_one_rejected_row(zone: str) -> None:
    with pytest.raises(RowsRejected) as caught:
        directories([0, 2**63 - 1, -(2**63), None, 253402300800000000], pa.timestamp("us", "UTC"), "day(c)", zone=zone)
    assert [(one.position, one.reason, one.path) for one in caught.value.rejections] == [
        (row, "path", "c") for row in (1, 2, 4)
    ]


def test_the_hour_that_clocks_show_twice_is_one_directory_and_the_one_they_skip_is_none() -> None:
    kind = pa.timestamp("us", "UTC")
    autumn = [dt.datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1, 2)]
    assert directories(autumn, kind, "hour(c) as h", zone="Europe/Berlin") == [
        "h=2026-10-25-02",
        "h=2026-10-25-02",
        "h=2026-10-25-03",
    ]
    spring = [dt.datetime(2026, 3, 29, hour, 30, tzinfo=UTC) for hour in (0, 1)]
    assert directories(spring, kind, "hour(c) as h", zone="Europe/Berlin") == ["h=2026-03-29-01", "h=2026-03-29-03"]
    # A timestamp without a zone is what a clock showed.
    assert directories([NOON], pa.timestamp("us"), "hour(c) as h", zone="Europe/Berlin") == ["h=2017-11-16-22"]


def test_clocks_that_are_changed_within_an_hour_are_told_to_the_second() -> None:
    # Newfoundland put its clocks forward at a minute past midnight, which is 03:31 UTC.
    times = [dt.datetime(2006, 4, 2, 3, 30, 59, tzinfo=UTC), dt.datetime(2006, 4, 2, 3, 31, tzinfo=UTC), None]
    assert directories(times, pa.timestamp("s", "UTC"), "hour(c) as h", zone="America/St_Johns") == [
        "h=2006-04-02-00",
        "h=2006-04-02-01",
        f"h={DEFAULT}",
    ]


@given(
    st.lists(st.none() | st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)), min_size=1, max_size=30),  # noqa: DTZ001
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]),
)
@settings(deadline=None)
def test_the_directory_of_a_record_depends_on_that_record_only(values: list[dt.datetime | None], zone: str) -> None:
    times = [None if one is None else one.replace(tzinfo=UTC) for one in values]
    texts = ("day(c) as dt", "hour(c) as hour", "bucket(c, 7)")
    kind = pa.timestamp("us", "UTC")
    together = directories(times, kind, *texts, zone=zone)
    assert together == [directories([one], kind, *texts, zone=zone)[0] for one in times]
    for one, found in zip(times, together, strict=True):
        if one is not None:
            local = one.astimezone(ZoneInfo(zone))
            assert found.startswith(f"dt={local.date().isoformat()}/hour={local.hour:02d}/")


@pytest.mark.parametrize(
    ("one", "kind", "expected"),
    [
        # Iceberg's table specification, "Truncate Transform Details".
        (1, pa.int32(), "0"),
        (-1, pa.int64(), "-10"),
        (-(2**63), pa.int64(), "-9223372036854775810"),
        (2**64 - 1, pa.uint64(), "18446744073709551610"),
        (Decimal("10.65"), pa.decimal128(9, 2), "10.60"),
        (Decimal("-0.05"), pa.decimal128(9, 2), "-0.10"),
        (
            Decimal("12345678901234567890123456789012345.678"),
            pa.decimal128(38, 3),
            "12345678901234567890123456789012345.670",
        ),
        ("iceberg table", pa.string(), "iceberg%20ta"),
        ("äöüäöüäöüäöü", pa.large_string(), "%C3%A4%C3%B6%C3%BC" * 3 + "%C3%A4"),
        ("", pa.string(), DEFAULT),
        (None, pa.int8(), DEFAULT),
    ],
)
def test_truncate_is_that_of_the_iceberg_specification(one: object, kind: pa.DataType, expected: str) -> None:
    assert value("truncate(c, 10)", one, kind) == expected


@given(st.lists(st.none() | st.text(max_size=8), min_size=1, max_size=20), st.integers(1, 9))
@settings(deadline=None)
def test_texts_of_a_directory_share_their_beginning(values: list[str | None], width: int) -> None:
    texts = (f"truncate(c, {width})", "bucket(c, 4)")
    together = directories(values, pa.string(), *texts)
    assert together == [directories([one], pa.string(), *texts)[0] for one in values]
    groups: dict[str, set[str]] = {}
    for one, found in zip(values, together, strict=True):
        groups.setdefault(found.partition("/")[0], set()).add((one or "")[:width])
    assert all(len(group) == 1 for group in groups.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("week(ts)", "there are year, month"),
        ("day(ts, 3)", "a column and nothing else"),
        ("bucket(id)", "a number above 0"),
        ("bucket(id, 0)", "a number above 0"),
        ("bucket(id, -1)", "a number above 0"),
        ("bucket(id, x)", "a number above 0"),
        ("truncate(name, 99999999999)", "a number above 0"),
        ("day(ts", "write a column, or a function"),
        ("day(a, b, c)", "write a column, or a function"),
        ("country as land", "write a column, or a function"),
        ("day(ts) as _dt", "cannot name a directory"),
        ("day(ts) as a/b", "cannot name a directory"),
        ("day(a b)", "cannot name a directory"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--parquet\.partition-by") as caught:
        ParquetOptions.of({"path": "x", "partition_by": text})
    assert message in str(caught.value)


def test_two_directories_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'dt' twice"):
        rules_of(["day(a) as dt", "day(b) as dt"])
    assert rules_of(["day(a)", "day(b)"])


def test_commas_in_parentheses_belong_to_the_function() -> None:
    assert separated("a, bucket(b, 4) ,day(c) as d") == ("a", "bucket(b, 4)", "day(c) as d")
    assert separated(["bucket(b,4),a", "c"]) == ("bucket(b,4)", "a", "c")
    assert rules_of(["bucket(b,4)"])[0].text == rules_of(["Bucket( b , 4 )"])[0].text


SCHEMA = pa.schema([("ts", pa.string()), ("at", pa.timestamp("us")), ("ok", pa.bool_()), ("p", pa.float64())])


@pytest.mark.parametrize(
    ("text", "coordinates", "message"),
    [
        ("day(ts)", "default", "column 'ts' is string; day takes a date or a timestamp"),
        ("bucket(p, 3)", "default", "column 'p' is double; bucket takes"),
        ("truncate(ok, 3)", "default", "column 'ok' is bool; truncate takes"),
        ("day(nope)", "default", "there is no column 'nope'"),
        ("day(_timestamp)", "none", "there is no column '_timestamp'"),
        ("day(at) as ts", "default", "the directory 'ts' would hide the column of that name"),
    ],
)
def test_a_type_that_a_function_does_not_take_is_refused_at_the_start(
    text: str, coordinates: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ParquetOptions.of({"path": "x", "partition_by": text, "schema": SCHEMA, "coordinates": coordinates})
    assert message in str(caught.value)


def test_a_zone_that_is_not_known_is_refused_where_it_matters() -> None:
    assert known_zone("Europe/Berlin")
    with pytest.raises(ConfigurationError, match=r"--parquet\.partition-zone 'Europe/Bielefeld'"):
        ParquetOptions.of({"path": "x", "partition_by": "day(ts)", "partition_zone": "Europe/Bielefeld"})
