"""CSV without a header, one line a message."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ByteSize

from batcher.errors import ConfigurationError
from batcher.formats.delimited import CsvSection, plugin
from batcher.formats.delimited.format import CsvFormat, CsvOptions
from batcher.formats.json.limits import JsonOptions
from batcher.plugins import PluginContext
from batcher.records import Decoded, UnknownField
from batcher.settings.model import Decode
from batcher.testing.contract.format import SCHEMA, FormatCase, FormatLaws
from batcher.testing.values import make_batch, make_records

TWO = pa.schema([("i", pa.int8()), ("t", pa.string())])


def line(row: dict[str, Any]) -> bytes:
    cells = [json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()]
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue().encode()


class TestCsv(FormatLaws):
    @pytest.fixture
    def case(self) -> FormatCase:
        return FormatCase(CsvFormat(CsvOptions(columns=tuple(SCHEMA.names))), line)


def decode(schema: pa.Schema, *lines: bytes | str | None, **options: Any) -> Decoded:
    own = {name: options.pop(name) for name in ("columns", "delimiter", "quote", "null") if name in options}
    form = CsvFormat(CsvOptions(**own, json=JsonOptions(**options)))
    return form.decoder(schema).decode(make_batch(make_records(lines)))


def test_fields_fill_the_columns_of_the_target_in_their_order() -> None:
    assert decode(TWO, "1,a", '2,"b,""c"""').table.to_pylist() == [{"i": 1, "t": "a"}, {"i": 2, "t": 'b,"c"'}]


def test_fields_fill_the_columns_that_the_option_names_and_the_others_are_unknown() -> None:
    decoded = decode(TWO, "x,1,a", ",2,b", columns=("new", "i", "t"))
    assert decoded.table.to_pylist() == [{"i": 1, "t": "a"}, {"i": 2, "t": "b"}]
    assert decoded.unknown == (UnknownField("new", 1, 0),)
    assert decode(TWO, "a", columns=("t",)).table.to_pylist() == [{"i": None, "t": "a"}]
    assert decode(TWO, "3", columns=("I",), match="insensitive").table.to_pylist() == [{"i": 3, "t": None}]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("1", "columns"),
        ("1,a,b", "columns"),
        ("", "columns"),
        ('1,"a', "syntax"),
        ('1,a"b', "syntax"),
        ('1,"a"b', "syntax"),
        ('1,"a" ', "syntax"),
        ("1,a\n2,b", "syntax"),
        ("1,a\rb", "syntax"),
        ("1,a\n\n", "syntax"),
        ("\n1,a", "syntax"),
        ("\ufeff1,a", "syntax"),
        (b"1,\xff", "encoding"),
        ("one,a", "type"),
        ("01,a", "type"),
        ("1 ,a", "type"),
        ('"1}{""i"":2",a', "type"),
        ("NaN,a", "type"),
        ("300,a", "overflow"),
        ("1.5,a", "precision"),
    ],
)
def test_exactly_the_bad_record_is_refused_wherever_it_stands(bad: bytes | str, reason: str) -> None:
    decoded = decode(TWO, bad, "1,a", bad, '2,"b\nc"', bad)
    assert decoded.positions.to_pylist() == [1, 3]
    assert decoded.table.to_pylist() == [{"i": 1, "t": "a"}, {"i": 2, "t": "b\nc"}]
    assert [(one.position, one.reason) for one in decoded.rejections] == [(0, reason), (2, reason), (4, reason)]


def test_one_line_end_behind_a_record_belongs_to_no_field() -> None:
    assert decode(TWO, "1,a\n", "1,a\r\n", '1,"a\n"\n').table["t"].to_pylist() == ["a", "a", "a\n"]


def test_null_is_a_field_without_quotes_and_the_text_of_the_option() -> None:
    assert decode(TWO, ",", '1,""').table.to_pylist() == [{"i": None, "t": None}, {"i": 1, "t": ""}]
    assert decode(TWO, r"\N,", r'1,"\N"', null=r"\N").table.to_pylist() == [{"i": None, "t": ""}, {"i": 1, "t": r"\N"}]


def test_a_record_of_one_column_may_be_empty() -> None:
    assert decode(pa.schema([("t", pa.string())]), "", "a", '""', None).table["t"].to_pylist() == [None, "a", ""]


def test_without_a_quote_character_quotes_are_part_of_a_field() -> None:
    assert decode(TWO, '1;"a', delimiter=";", quote="").table["t"].to_pylist() == ['"a']


def test_values_follow_the_rules_of_json_for_the_types_of_the_target() -> None:
    schema = pa.schema(
        [
            ("b", pa.bool_()),
            ("f", pa.float64()),
            ("d", pa.decimal128(5, 2)),
            ("at", pa.timestamp("ms", "UTC")),
            ("day", pa.date32()),
            ("m", pa.map_(pa.string(), pa.int8())),
            ("s", pa.struct([("a", pa.int8())])),
            ("raw", pa.binary()),
        ]
    )
    decoded = decode(schema, 'true,1e3,1.50,1700000000,2024-05-06,"{""k"":1}","{""a"":2}",\0x')
    assert decoded.rejections == ()
    row = decoded.table.to_pylist()[0]
    assert (row["b"], row["f"], str(row["d"]), row["at"].timestamp(), str(row["day"])) == (
        True,
        1000.0,
        "1.50",
        1.7e9,
        "2024-05-06",
    )
    assert (row["m"], row["s"], row["raw"]) == ([("k", 1)], {"a": 2}, b"\0x")


@pytest.mark.parametrize("text", ["[1", '[1]}{"t":[2]', "1,2", "NaN", "[" * 5000])
def test_json_in_a_field_cannot_leave_it(text: str) -> None:
    schema = pa.schema([("t", pa.list_(pa.int8()))])
    decoded = decode(schema, '"[1]"', f'"{text}"'.replace('{"t"', '{""t""'), '"[2]"')
    assert decoded.table["t"].to_pylist() == [[1], [2]]
    assert [(one.position, one.reason, one.path) for one in decoded.rejections] == [(1, "syntax", "t")]


CELLS = st.one_of(st.text(max_size=5), st.text(",;\"'\n\r \0\ufeff|^-]\\", max_size=5))


@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=6),
    st.sampled_from(",;|^-]\\ \t'"),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
@settings(max_examples=80, deadline=None)
def test_what_a_writer_of_csv_wrote_is_read_as_it_was(rows: list[list[str]], delimiter: str, quoting: Any) -> None:
    lines = []
    for row in rows:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator="\r\n").writerow(row)
        lines.append(out.getvalue().encode(errors="surrogatepass"))
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    decoded = decode(schema, *lines, delimiter=delimiter)
    taken = dict(zip(decoded.positions.to_pylist(), decoded.table.to_pylist(), strict=True))
    for position, row in enumerate(rows):
        if position in taken:
            assert [cell or "" for cell in taken[position].values()] == row
        else:
            assert lines[position].startswith("\ufeff".encode())


@given(st.lists(st.text(',"\n\rab1\0\ufeff', max_size=8).map(str.encode), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_a_record_fares_the_same_alone_and_among_others(lines: list[bytes]) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.int8())])
    together = decode(schema, *lines)
    rows = dict(zip(together.positions.to_pylist(), together.table.to_pylist(), strict=True))
    reasons = {one.position: (one.reason, one.message) for one in together.rejections}
    for position, text in enumerate(lines):
        alone = decode(schema, text)
        assert alone.table.to_pylist() == ([rows[position]] if position in rows else [])
        assert [(r.reason, r.message) for r in alone.rejections] == ([reasons[position]] if position in reasons else [])


def test_a_target_without_columns_needs_their_names() -> None:
    batch = make_batch(make_records(["1,a"]))
    with pytest.raises(ConfigurationError, match=r"--csv\.columns"):
        CsvFormat().infer(batch)
    assert CsvFormat(CsvOptions(columns=("a", "b"))).infer(batch) == pa.schema([("a", pa.string()), ("b", pa.string())])


def test_a_column_without_a_type_gets_one_with_its_first_value() -> None:
    form, schema = CsvFormat(), pa.schema([("a", pa.null()), ("b", pa.string())])
    batch = make_batch(make_records([",x", "y,x"]))
    assert form.decoder(schema).decode(batch).outgrown
    assert form.grow(schema, batch) == pa.schema([("a", pa.string()), ("b", pa.string())])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delimiter": ""}, "delimiter"),
        ({"delimiter": "ab"}, "delimiter"),
        ({"delimiter": "\n"}, "delimiter"),
        ({"quote": "ä"}, "quote"),
        ({"quote": ","}, "quote"),
        ({"null": "a,b"}, "null"),
        ({"columns": ("a", "a")}, "columns"),
    ],
)
def test_characters_that_cannot_be_told_apart_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"--csv\.{says}"):
        CsvOptions(**options)


def test_the_plug_in_takes_its_own_section_and_the_one_of_decoding() -> None:
    context = PluginContext(sections=(Decode(max_message_bytes=ByteSize(30), tombstones="reject", epoch=("ms",)),))
    make: Callable[..., CsvFormat] = plugin  # type: ignore[assignment]
    form = make(CsvSection(columns=("a",), delimiter="tab", quote="none"), context=context)
    json = JsonOptions(epoch={"*": "ms"}, max_message_bytes=30, tombstones="reject")
    assert form._options == CsvOptions(("a",), "\t", "", json=json)
