"""What Arrow's reader gets to see: the facts on which the proof in `guard.py` stands."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.json import timestamps
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.formats.json.guard import guard
from batcher.testing.values import make_batch, make_records

HOSTILE = [
    b'{"x":1}',
    b' {\n"x"\r\n:\t2}\r\n',
    b"",
    b"\n",
    b"null",
    b"{}\0{}",
    b"{}\nnull\n{}",
    b'{"y":"\n"}',
    b"\xef\xbb\xbf{}",
    b"{\xff}",
    b"[{}]",
    b'{"y":NaN}',
    b'{"y":"NaN","z":":NaN"}',
    b'{"y":' + b"[" * 70 + b"]" * 70 + b"}",
]


@pytest.mark.parametrize("values", [HOSTILE, HOSTILE[::-1], HOSTILE[1:2], HOSTILE[5:6], HOSTILE[:1]])
def test_the_reader_sees_only_braced_text_without_newline_or_nul(values: list[bytes]) -> None:
    guarded = guard(pa.array(values, pa.binary()), JsonOptions())
    for text, position in zip(guarded.texts.to_pylist(), guarded.positions.to_pylist(), strict=True):
        assert text.startswith(b"{")
        assert text.endswith(b"}")
        assert not set(text) & set(b"\n\r\0")
        assert text == values[position].strip().replace(b"\n", b"\t").replace(b"\r", b"\t")
        text.decode()
    kept = set(guarded.positions.to_pylist())
    assert kept | {rejection.position for rejection in guarded.rejections} == set(range(len(values)))
    # What holds two documents passes here; the number of rows gives it away.
    assert {values[position] for position in kept} <= {HOSTILE[0], HOSTILE[1], HOSTILE[6], HOSTILE[7], HOSTILE[12]}


def test_a_guarded_slice_is_read_from_its_own_bytes() -> None:
    values = pa.array([b"\xff" * 10, b'{"x":1}', None, b'{"x":2}', b"\n"], pa.binary()).slice(1, 3)
    guarded = guard(values, JsonOptions())
    assert guarded.texts.to_pylist() == [b'{"x":1}', b'{"x":2}']
    assert (guarded.positions.to_pylist(), guarded.skipped.to_pylist(), guarded.rejections) == ([0, 2], [1], [])


def test_lines_of_null_inside_messages_never_begin_a_block_of_the_reader() -> None:
    # Arrow 26 crashes the process on a block that begins with `null`; in 3 MB of these some block would.
    schema = pa.schema([("x", pa.int64())])
    message = b'{"x":1}' + b"\nnull" * 2000 + b'\n{"x":2}'
    decoded = JsonFormat().decoder(schema).decode(make_batch(make_records([message] * 300)))
    assert [rejection.reason for rejection in decoded.rejections] == ["trailing_data"] * 300


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        ("99999999999.99999999999999999999999999", 99_999_999_999),
        ("100000000000", 10**8),
        ("99999999999999.99999999999999999999999999", 99_999_999_999),
        ("100000000000000", 10**8),
        ("100000000000000000", 10**8),
        ("-99999999999.99999999999999999999999999", -(10**11)),
    ],
)
def test_the_magnitude_of_an_epoch_number_is_judged_by_all_its_digits(number: str, seconds: int) -> None:
    assert timestamps.of_number(Decimal(number), "s") == seconds


STRINGS = ["", "{", "[[[[", "}]", "/{id}/[x]", ":{", ", [", '\\"', "\\\\", "é{"]


def nested(dice: Random, depth: int) -> str:
    """Return a value with at most so many levels, in which strings hold brackets too."""
    text = f'"{dice.choice(STRINGS)}"'
    if depth < 1 or dice.random() < 0.1:
        return text
    inner = nested(dice, depth - 1)
    space = dice.choice(["", " ", "\t", "\n", "\r\n  "])
    if dice.random() < 0.5:
        return f"[{text},{space}{inner}{space}]" if dice.random() < 0.5 else f"[{space}{inner},{text}]"
    return f"{{{text}:{space}{inner}}}" if dice.random() < 0.5 else f'{{"a":{space}{text},"b":{space}{inner}}}'


def levels(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(levels, inside), default=0)


@pytest.mark.parametrize("more", [0, 1000], ids=["dense", "sparse"])
@pytest.mark.parametrize("seed", range(20))
def test_a_document_passes_if_it_is_no_deeper_than_allowed_whatever_its_strings_hold(seed: int, more: int) -> None:
    dice = Random(seed)
    limit = dice.randrange(1, 12)
    texts = [f'{{"more":"{"x" * more}","x":{nested(dice, dice.randrange(15))}}}' for _ in range(400)]
    values = pa.array([text.encode() for text in texts], pa.binary())
    fits = [levels(json.loads(text)) <= limit for text in texts]

    guarded = guard(values.slice(7, 300), JsonOptions(max_depth=limit))

    assert guarded.positions.to_pylist() == [row for row in range(300) if fits[row + 7]]
    assert {one.reason for one in guarded.rejections} <= {"too_deep"}


def test_a_message_of_nothing_but_brackets_is_as_deep_as_another() -> None:
    flat, deep = b'{"x":[' + b",".join([b"[]"] * 500) + b"]}", b'{"x":' + b"[" * 64 + b"]" * 64 + b"}"

    guarded = guard(pa.array([flat, deep] * 50, pa.binary()), JsonOptions())

    assert guarded.positions.to_pylist() == list(range(0, 100, 2))
