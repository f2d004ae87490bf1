"""Timestamp columns: the unit of numbers (`--decode.epoch`), and what is said where values are guessed at or cut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.formats.json.format import JsonDecoder, JsonFormat, JsonOptions
from batcher.records import RAW_JSON, Decoded
from batcher.testing.values import make_batch, make_records

MS = pa.timestamp("ms", "UTC")
NESTED = pa.schema(
    [
        ("at", MS),
        ("geo", pa.struct([("at", pa.timestamp("us"))])),
        ("times", pa.list_(pa.timestamp("s"))),
        ("by", pa.map_(pa.string(), MS)),
        ("day", pa.date32()),
    ]
)
SLOW = pa.field("raw", pa.string(), metadata={RAW_JSON: b"1"})
"""With this column each record is read by itself."""


def decode(*values: str, schema: pa.Schema, epoch: Mapping[str, Any]) -> Decoded:
    return JsonFormat(JsonOptions(epoch=epoch)).decoder(schema).decode(make_batch(make_records(values)))


def points(decoded: Decoded, name: str = "x") -> list[int | None]:
    found: list[int | None] = decoded.table[name].combine_chunks().view(pa.int64()).to_pylist()
    return found


@pytest.mark.parametrize("more", [[], [SLOW]], ids=["fast", "slow"])
@pytest.mark.parametrize(
    ("unit", "number", "ms"),
    [
        ("ms", "0", 0),
        ("ms", "1000", 1000),
        ("ms", "86400000", 86_400_000),
        ("ms", "99999999999", 99_999_999_999),
        ("ms", "-99999999999", -99_999_999_999),
        ("ms", "1700000000123", 1_700_000_000_123),
        ("ms", "1.9", 1),
        ("ms", "-0.5", -1),
        ("ms", "1e3", 1000),
        ("s", "100000000000", 10**14),
        ("s", "1700000000.123999", 1_700_000_000_123),
        ("us", "1000", 1),
        ("us", "-1", -1),
        ("ns", "1700000000123456789", 1_700_000_000_123),
        ("ns", "999999", 0),
    ],
)
def test_numbers_count_in_the_unit_that_is_set_also_near_1970(
    unit: str, number: str, ms: int, more: list[pa.Field]
) -> None:
    schema = pa.schema([("x", MS), *more])
    for text in (number, f'"{number}"'):
        for names in ({"*": unit}, {"x": unit}, {"x": unit, "*": "s"}):
            decoded = decode(f'{{"x":{text}}}', schema=schema, epoch=names)
            assert points(decoded) == [ms]
            assert not any("--decode.epoch" in note for note in decoded.notes)


@pytest.mark.parametrize("more", [[], [SLOW]], ids=["fast", "slow"])
@pytest.mark.parametrize(
    ("unit", "column", "number"),
    [
        ("s", "ns", "9223372037"),
        ("s", "ms", "9223372036854776"),
        ("ms", "ns", "-9223372036855"),
        ("s", "us", "1e28"),
        ("ns", "s", "9" * 40),
        ("ns", "s", "-" + "9" * 29 + ".9"),
    ],
)
def test_a_number_beyond_the_column_in_its_unit_is_refused_and_not_wrapped(
    unit: str, column: str, number: str, more: list[pa.Field]
) -> None:
    schema = pa.schema([("x", pa.timestamp(column)), *more])
    decoded = decode('{"x":0}', f'{{"x":{number}}}', '{"x":1}', schema=schema, epoch={"x": unit})
    assert [(r.position, r.reason, r.path) for r in decoded.rejections] == [(1, "timestamp", "x")]
    assert decoded.positions.to_pylist() == [0, 2]


def test_columns_inside_objects_lists_and_maps_have_units_of_their_own() -> None:
    schema = pa.schema([field for field in NESTED if field.name != "by"])
    raw = '{"at":1,"geo":{"at":2},"times":[3000,null]}'
    units = {"geo.at": "s", "times": "ms", "*": "ms"}
    (row,) = decode(raw, schema=schema, epoch=units).table.to_pylist()
    assert (row["at"].timestamp(), row["geo"]["at"].second, row["times"][0].second) == (0.001, 2, 3)
    (row,) = decode('{"by":{"a":5}}', schema=NESTED, epoch={"by": "s"}).table.to_pylist()
    assert row["by"][0][1].timestamp() == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch", "--decode.epoch nosuch: is no column; timestamp columns there are: at, geo.at, times, by"),
        ("day", "--decode.epoch day: is no timestamp column; timestamp columns there are: at"),
    ],
)
def test_a_unit_for_a_column_that_is_no_timestamp_stops_at_the_start(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + re.escape(words)):
        JsonFormat(JsonOptions(epoch={name: "ms"})).decoder(NESTED)


@pytest.mark.parametrize("more", [[], [SLOW]], ids=["fast", "slow"])
@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (["1700000000", "1700000001.5", "0", "null"], []),
        (['"1700000000"', '"0"'], []),
        (['"1700000000"', '"1700000000123"'], ["seconds, others as milliseconds"]),
        (['"-1"'], ["read as seconds give times before 1973-03-03"]),
        (["1700000000123"], []),
        (["1700000000", "1700000000123"], ["seconds, others as milliseconds"]),
        (["1700000000", "0", "1700000000123", "1700000000123000"], ["seconds, others as milliseconds or microseconds"]),
        (["86400000"], ["read as seconds give times before 1973-03-03"]),
        (["99999999999"], ["read as seconds give times before 1973-03-03 or after 2099"]),
        (["20260131120000"], ["read as milliseconds give times before 1973-03-03 or after 2099"]),
        (["-1"], ["read as seconds give times before 1973-03-03"]),
        (["-1700000000123", "1700000000123000"], ["milliseconds, others as microseconds", "read as milliseconds"]),
    ],
)
def test_a_guess_that_may_be_wrong_is_named_once_and_not_silent(
    numbers: list[str], said: list[str], more: list[pa.Field]
) -> None:
    decoder = JsonFormat().decoder(pa.schema([("x", MS), *more]))
    batch = make_batch(make_records([f'{{"x":{number}}}' for number in numbers]))
    decoded = decoder.decode(batch)
    assert decoded.rejections == ()
    assert len(decoded.notes) == len(said)
    for note, words in zip(decoded.notes, said, strict=True):
        assert note.startswith("column x: ")
        assert words in note
        assert note.endswith("set --decode.epoch x=UNIT")
    assert decoder.decode(batch).notes == ()


@pytest.mark.parametrize("more", [[], [SLOW]], ids=["fast", "slow"])
@pytest.mark.parametrize(
    ("kind", "text", "cut"),
    [
        ("ms", '"2026-01-31T12:00:00.123456789Z"', True),
        ("ms", '"2026-01-31T12:00:00.1230000Z"', False),
        ("ms", '"2026-01-31T12:00:00Z"', False),
        ("s", '"2026-01-31 12:00:00.5"', True),
        ("ns", '"2026-01-31T12:00:00.123456789Z"', False),
        ("ns", '"2026-01-31T12:00:00.1234567891Z"', True),
        ("s", "1700000000123", True),
        ("s", "1700000000000", False),
        ("ms", "1700000000.123", False),
        ("ms", "1700000000.1234", True),
        ("ms", "1700000000123456", True),
        ("ms", '"1700000000123456"', True),
        ("ms", "1.7e9", False),
        ("ms", "0", False),
    ],
)
def test_times_that_are_finer_than_their_column_are_cut_with_a_word(
    kind: str, text: str, cut: bool, more: list[pa.Field]
) -> None:
    decoder = JsonFormat().decoder(pa.schema([("x", pa.timestamp(kind)), *more]))
    batch = make_batch(make_records([f'{{"x":{text}}}', '{"x":null}']))
    notes = decoder.decode(batch).notes
    assert len(notes) == cut
    assert not cut or notes[0].startswith("column x: times are finer than its ")
    assert decoder.decode(batch).notes == ()


def test_units_that_change_from_one_batch_to_the_next_are_noticed() -> None:
    decoder = JsonFormat().decoder(pa.schema([("x", MS)]))
    assert decoder.decode(make_batch(make_records(['{"x":1700000000}']))).notes == ()
    (note,) = decoder.decode(make_batch(make_records(['{"x":1700000000123}']))).notes
    assert "some numbers are read as seconds, others as milliseconds" in note


@pytest.mark.parametrize("text", ["2026", "20260131", "202601311200", "20260131120000", "20260131120000123"])
def test_a_date_without_separators_is_not_taken_for_a_number(text: str) -> None:
    schema = pa.schema([("x", MS)])
    (rejection,) = decode(f'{{"x":"{text}"}}', schema=schema, epoch={}).rejections
    assert (rejection.reason, rejection.path) == ("timestamp", "x")
    assert "may be a date without separators" in rejection.message
    assert text not in rejection.message
    assert points(decode(f'{{"x":"{text}"}}', schema=schema, epoch={"x": "ms"})) == [int(text)]


@pytest.mark.parametrize("neighbour", ["0", "1700000000", "1700000000123", "-5", "1.5"])
@pytest.mark.parametrize("text", ["1900", "2099", "20260131", "202601311200", "20991231235959", "20260131120000123"])
def test_a_date_without_separators_is_refused_among_numbers_too_and_numbers_of_its_size_are_not(
    text: str, neighbour: str
) -> None:
    messages = [f'{{"x":{neighbour}}}'] * 100
    decoder = JsonFormat().decoder(pa.schema([("x", MS)]))
    for _ in range(2):
        # The second time it reads the column as numbers from the beginning.
        decoded = decoder.decode(make_batch(make_records([*messages, f'{{"x":"{text}"}}', f'{{"x":{text}}}'])))
        assert [(one.position, one.reason) for one in decoded.rejections] == [(100, "timestamp")]
        assert points(decoded)[-1] == points(decode(f'{{"x":{text}}}', schema=pa.schema([("x", MS)]), epoch={}))[0]


@pytest.mark.parametrize("text", ["20261331", "1700000000", "1700000000123", "99999999"])
def test_digits_that_are_no_date_stay_a_number(text: str) -> None:
    assert decode(f'{{"x":"{text}"}}', schema=pa.schema([("x", MS)]), epoch={}).rejections == ()


@pytest.mark.parametrize("values", [('{"x":5}',), ('{"x":0}', '{"x":"5"}', '{"x":1e3}'), ('{"x":[]}', '{"x":5}')])
def test_where_no_unit_may_be_guessed_numbers_are_refused_and_texts_are_read(values: tuple[str, ...]) -> None:
    schema = pa.schema([("x", pa.timestamp("us", "UTC"))])
    decoded = decode('{"x":"2020-01-01"}', *values, "{}", schema=schema, epoch={"*": "none"})
    assert decoded.positions.to_pylist() == [0, len(values) + 1]
    numbers = [one for one in decoded.rejections if one.reason == "timestamp"]
    assert numbers
    assert all("--decode.epoch x=ms" in one.message for one in numbers)


def fate(decoded: Decoded) -> dict[int, Any]:
    """Return what became of each record, by its place."""
    rows = zip(decoded.positions.to_pylist(), decoded.table.to_pylist(), strict=True)
    return {one.position: (one.reason, one.message, one.path) for one in decoded.rejections} | dict(rows)


ODD_TIMES = (
    *(
        "1700000000",
        "-1",
        "0",
        "1.5",
        "1e3",
        "1e99",
        "123456789012345678901234567890",
        "2026",
        "20260131",
        "1700000000123",
    ),
    *(
        f'"{text}"'
        for text in ("1700000000", "+1700000000", "2026", "20260131", "1e3", "1.5", "", "soon", "2026-13-01")
    ),
    *("null", "true", '{"a":1}', "[5]"),
)
"""What stands, now and then, in a column of texts in ISO 8601."""


@pytest.mark.parametrize("epoch", ["auto", "none", "ms", "ns"])
@pytest.mark.parametrize("path", ["at", "geo.at", "times", "by"])
@pytest.mark.parametrize("often", [1, 40])
def test_in_large_records_numbers_among_texts_mean_what_they_mean_alone(path: str, epoch: str, often: int) -> None:
    shapes = {"at": '"at":%s', "geo.at": '"geo":{"at":%s}', "times": '"times":[%s,null]', "by": '"by":{"k":%s}'}
    shape = f'{{"more":"{"x" * 3000}",{shapes[path]}}}'
    odd = [shape % value for value in ODD_TIMES for _ in range(often)]
    usual = [shape % f'"2026-03-04T05:06:{number % 60:02d}Z"' for number in range(len(odd) * 40 // often)]
    step = len(usual) // len(odd)
    mixed = [*usual]
    for number, value in enumerate(odd):
        mixed.insert(number * (step + 1), value)
    options = JsonOptions(epoch={"*": epoch})  # type: ignore[dict-item]
    fates = {
        value: fate(JsonFormat(options).decoder(NESTED).decode(make_batch(make_records([value])))) for value in odd
    }
    decoder = JsonFormat(options).decoder(NESTED)

    # The first batch teaches the decoder, the second is read as it has learnt.
    for _ in range(2):
        found = fate(decoder.decode(make_batch(make_records(mixed))))
        assert len(found) == len(mixed)
        for number, value in enumerate(odd):
            assert found[number * (step + 1)] == fates[value][0]
    if type(decoder) is JsonDecoder and path != "by":
        assert decoder._block._quoted == {path if path != "times" else "times[]"}
