import json

import pytest

from batcher.generate.csv_rows import csv_chunks
from batcher.generate.inputs import BrokenInput
from batcher.generate.skipped import SkipReason

Found = list[tuple[int, bytes | SkipReason]]


def rows(*parts: bytes, numbers: str = "", most: int = 10_000, stopped: bool = False) -> Found:
    named = frozenset(filter(None, numbers.split(",")))
    chunks = csv_chunks(parts, "x.csv", lambda: stopped, most, named)
    return [pair for chunk in chunks for pair in zip(chunk.numbers, chunk.items, strict=True)]


def test_each_row_is_an_object_of_texts_and_nothing_of_a_cell_changes() -> None:
    found = rows(
        b"\xef\xbb\xbfid,text,n\r\n"
        b'007,"a ""q"", b\r\nline 2",9223372036854775807\r\n'
        b"+1,\xe2\x80\xa8\xc3\xa9\\,1.50\n"
        b',"",1e400'
    )

    assert [(number, json.loads(row)) for number, row in found] == [
        (2, {"id": "007", "text": 'a "q", b\r\nline 2', "n": "9223372036854775807"}),
        (4, {"id": "+1", "text": "\u2028é\\", "n": "1.50"}),
        (5, {"id": "", "text": "", "n": "1e400"}),
    ]


def test_columns_of_numbers_keep_each_digit_and_an_empty_cell_is_null() -> None:
    found = rows(b"id,n\n9223372036854775808,1.50\n-0,\n1,1E400\n", numbers="id,n")

    assert [row for _, row in found] == [
        b'{"id":9223372036854775808,"n":1.50}',
        b'{"id":-0,"n":null}',
        b'{"id":1,"n":1E400}',
    ]


def test_a_row_that_cannot_be_sent_costs_no_other() -> None:
    found = rows(b'a,n\n1,01\n\n1\n1,2,3\n\xff,1\n"x"y,1\n' + b"x" * 100 + b"\nok,2\n", numbers="n", most=50)

    assert found == [
        (2, SkipReason.NOT_A_NUMBER),
        (3, SkipReason.EMPTY),
        (4, SkipReason.WRONG_WIDTH),
        (5, SkipReason.WRONG_WIDTH),
        (6, SkipReason.NOT_UTF8),
        (7, SkipReason.BAD_QUOTES),
        (8, SkipReason.TOO_LARGE),
        (9, b'{"a":"ok","n":2}'),
    ]


def test_a_line_that_is_too_long_to_be_held_costs_no_other_and_is_numbered() -> None:
    assert rows(b"a\n", b"x" * 40, b"x" * 40, b"\nok\n", most=50) == [(2, SkipReason.TOO_LARGE), (3, b'{"a":"ok"}')]


def test_rows_come_as_they_arrive() -> None:
    def slowly() -> object:
        yield b"a\n1\n2"
        seen.append("more was asked for")
        yield b"2\n"

    seen: list[object] = []
    chunks = csv_chunks(slowly(), "x", lambda: False, 100, frozenset())  # type: ignore[arg-type]
    seen.extend(chunk.items for chunk in chunks)
    assert [one for one in seen if one] == [[b'{"a":"1"}'], "more was asked for", [b'{"a":"22"}']]


def test_a_row_that_a_stop_has_cut_is_not_sent() -> None:
    assert rows(b'a\n1\n"half', stopped=False) == [(2, b'{"a":"1"}'), (3, SkipReason.BAD_QUOTES)]

    stop = False

    def ending() -> object:
        nonlocal stop
        yield b'a\n1\n"half'
        stop = True

    chunks = csv_chunks(ending(), "x", lambda: stop, 100, frozenset())  # type: ignore[arg-type]
    assert [item for chunk in chunks for item in chunk.items] == [b'{"a":"1"}']


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"a,b,a\n", "has 'a' twice"),
        (b"\xff\n", "not in UTF-8"),
        (b'"a"b\n', "no header of CSV"),
        (b"a,b\n", "has no 'n', which --numbers names"),
    ],
)
def test_a_header_that_would_lose_a_column_is_told(header: bytes, text: str) -> None:
    with pytest.raises(BrokenInput, match=text):
        rows(header, numbers="n")


def test_an_empty_file_has_no_rows() -> None:
    assert rows() == rows(b"a,b\n") == []
