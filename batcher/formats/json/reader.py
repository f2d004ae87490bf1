"""Turn messages into columns with Arrow's JSON reader, on both cores and without the interpreter lock."""

from __future__ import annotations

import re
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json

from batcher.formats.json.guard import whole
from batcher.formats.json.shape import kinds

BLOCK_BYTES: Final = 1 << 20
"""What one thread parses in one go: 1 to 4 MB use the second core best; a single block would use one only."""

_COLUMN_BYTES: Final = 4096
"""A block has at least this for each column: to begin one costs 7 us, as much as parsing a tenth of that."""

_ROW: Final = re.compile(r"^JSON parse error: .* in row (\d+)$")

_UNKNOWN: Final = "unexpected field"

_TWICE: Final = re.compile(r"^JSON parse error: Column\((.*)\) was specified twice", re.DOTALL)


_FAR: Final = (
    r'[:\[,\s"][+-]?(?:[\d.]+[eE]-0*[1-9]\d|[\d.]{25,}[eE]-\d)'
    r"|\\u00(?:3\d|[46]5|2[bBdDeE])"
)
"""A number, or a text with one, that is far below the point; or a letter of one that is written as an escape."""


class Unreadable(Exception):
    """Say that not every message of a block is one document of the schema.

    `row` is one that is to blame, where Arrow names it: for what it finds while parsing, in a single block.
    `unknown` says that a field is to blame that the schema does not have, `twice` is the path of a column whose key
    occurs twice.
    """

    def __init__(self, row: int | None = None, *, unknown: bool = False, twice: str | None = None) -> None:
        super().__init__()
        self.row = row
        self.unknown = unknown
        self.twice = twice


def block_bytes(columns: int) -> int:
    """Return what one thread parses in one go where there are so many columns, however deep."""
    return max(BLOCK_BYTES, _COLUMN_BYTES * columns)


def refuse_far_exponents(texts: pa.Array, schema: pa.Schema) -> None:
    """Raise Unreadable where a message may have a number that Arrow must not read with this schema.

    Arrow 26 shifts decimals by a table of powers, whose end it does not watch: `1e-41` becomes zero in a decimal with
    two digits, and `1e-9999999` ends the process. Columns of numbers since 1970 are read as decimals too.
    """
    if not any(pa.types.is_decimal(kind) for kind in kinds(schema)):
        return
    everything = whole(texts)
    # Searched with vector instructions, unlike the expression. Most blocks have neither.
    if not any(pc.match_substring_regex(everything, part)[0].as_py() for part in ("e-", "E-", r"\\u00")):
        return
    far = pc.index(pc.match_substring_regex(texts, _FAR), True).as_py()
    if far >= 0:
        raise Unreadable(far)


def read(texts: pa.Array, schema: pa.Schema, *, reject_unknown: bool, block_bytes: int = BLOCK_BYTES) -> list[pa.Array]:
    """Return one array for each field, row i from message i; `texts` have passed `guard.py`.

    Raise Unreadable when that is not possible for all of them.
    """
    if not len(texts):
        return [pa.array([], field.type) for field in schema]
    buffer = join(texts)
    longest = pc.max(pc.binary_length(texts)).as_py()
    options = arrow_json.ReadOptions(
        use_threads=buffer.size > block_bytes,
        # A document that is cut by the end of a block has to end in the next one.
        block_size=max(block_bytes, 2 * longest),
    )
    parsing = arrow_json.ParseOptions(
        explicit_schema=schema, unexpected_field_behavior="error" if reject_unknown else "ignore"
    )
    try:
        table = arrow_json.read_json(pa.BufferReader(buffer), options, parsing)
    except (pa.ArrowInvalid, pa.ArrowCapacityError) as error:
        named = _ROW.search(str(error)) if buffer.size <= options.block_size else None
        row = int(named[1]) if named and int(named[1]) < len(texts) else None
        twice = _TWICE.search(str(error))
        raise Unreadable(row, unknown=_UNKNOWN in str(error), twice=twice and twice[1]) from error
    if table.num_rows != len(texts):
        raise Unreadable
    # One call for all: after each call, the interpreter lock has to be waited for.
    return [_one(column) for column in table.combine_chunks().columns]


def join(texts: pa.Array) -> Any:
    """Return the buffer of all messages, a newline after each."""
    # One call that knows the size beforehand. A join of the whole would grow its buffer, and copy it each time.
    lines = pc.binary_join_element_wise(texts, b"", b"\n")
    if isinstance(lines, pa.ChunkedArray):
        raise Unreadable
    return lines.buffers()[2]


def _one(column: pa.ChunkedArray) -> pa.Array:
    # More than 2 GB of text in one column stays in chunks; a smaller block will fit.
    if column.num_chunks > 1:
        raise Unreadable
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
