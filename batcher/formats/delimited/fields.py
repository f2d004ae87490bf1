"""Split records into columns of texts: what has to be true of each record before Arrow's CSV reader may see it.

Arrow reads joined records as one file and numbers the rows that it finds. That row i is record i follows from this:

1. Each record, without the line end behind it, is well-formed: fields without any quote or line end, or in quotes with
   the quotes inside doubled, and nothing between a closing quote and the next delimiter. So it begins and ends outside
   of quotes, and its line ends are inside of them.
2. Each has as many fields as there are columns.
3. Records are joined by a newline; empty lines count.

Arrow alone would take a quote in the middle of a field, let a quote that is not closed run into the next record, and
drop a byte order mark, but only of the first record. All of these are refused here, whole columns at a time.
"""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from batcher.formats.delimited.options import CsvOptions
from batcher.formats.json.limits import Refused
from batcher.formats.json.timestamps import piecewise

_BLOCK_BYTES: Final = 1 << 20


class FieldSplitter:
    """Split records of a number of fields."""

    def __init__(self, count: int, options: CsvOptions) -> None:
        self._count = count
        self._options = options
        delimiter, quote = re.escape(options.delimiter), re.escape(options.quote)
        bare = rf"[^{delimiter}{quote}\r\n]*"
        self._quoted = f"{quote}(?:[^{quote}]|{quote}{quote})*{quote}" if quote else ""
        one = f"(?:{self._quoted}|{bare})" if quote else bare
        self._well_formed = rf"^{one}(?:{delimiter}{one})*$"

    def split(self, values: pa.BinaryArray) -> tuple[list[pa.StringArray], pa.Int64Array, dict[int, Refused]]:
        """Return the columns of the records that can be split, the rows of these, and why the others cannot be."""
        rows = pa.arange(0, len(values))
        texts, _ = piecewise(values, lambda part: part.cast(pa.string()))
        refused: dict[int, Refused] = {}

        def refuse(mask: pa.BooleanArray, why: Refused) -> None:
            nonlocal texts, rows
            if pc.any(mask).as_py():
                refused.update(dict.fromkeys(rows.filter(mask).to_pylist(), why))
                texts, rows = texts.filter(pc.invert(mask)), rows.filter(pc.invert(mask))

        refuse(texts.is_null(), Refused("encoding", "the message is not UTF-8"))
        refuse(pc.starts_with(texts, "\ufeff"), Refused("syntax", "the message begins with a byte order mark"))
        if pc.any(pc.ends_with(texts, "\n")).as_py():
            texts = pc.replace_substring_regex(texts, r"\r?\n$", "")
        refuse(
            pc.invert(pc.match_substring_regex(texts, self._well_formed)),
            Refused("syntax", "is no line of fields: a quote or a line end is not where it may be"),
        )
        counts = self._counts(texts)
        for count in sorted(set(pc.unique(counts).to_pylist()) - {self._count}):
            what = f"has {count} field{'s' if count > 1 else ''}, and there are {self._count} columns"
            wrong = pc.equal(counts, count)
            refuse(wrong, Refused("columns", what))
            counts = counts.filter(pc.invert(wrong))
        return self._read(texts), rows, refused

    def _counts(self, texts: pa.StringArray) -> pa.Int32Array:
        """Return how many fields well-formed records have."""
        if self._quoted:
            texts = pc.replace_substring_regex(texts, self._quoted, "")
        return pc.add(pc.count_substring(texts, self._options.delimiter), 1)

    def _read(self, texts: pa.StringArray) -> list[pa.StringArray]:
        names = [str(number) for number in range(self._count)]
        if not len(texts):
            return [pa.array([], pa.string()) for _ in names]
        # One call that knows the size beforehand; the newline behind each record ends it.
        data = pc.binary_join_element_wise(texts, "", "\n").buffers()[2]
        longest = pc.max(pc.binary_length(texts)).as_py()
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(column_names=names, block_size=max(_BLOCK_BYTES, 2 * longest + 2)),
            arrow_csv.ParseOptions(
                delimiter=self._options.delimiter,
                quote_char=self._options.quote or False,
                newlines_in_values=pc.any(pc.match_substring_regex(texts, r"[\r\n]")).as_py(),
                ignore_empty_lines=False,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[self._options.null],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        ).combine_chunks()
        assert table.num_rows == len(texts), "the checks above make each record one row"
        return [column.chunk(0) for column in table.columns]
