# bars.py: a format, for lines such as 7|Anna|Oslo
from collections.abc import Sequence
from typing import Annotated

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.options import Flag, Names, Section
from batcher.records import Batch, Decoded, Rejection


class BarsOptions(Section):
    """Lines of parts with something between them."""

    columns: Annotated[Names, Flag(metavar="COLUMN[,…]")]
    """What the parts are, from left to right."""
    separator: Annotated[str, Flag(metavar="TEXT")] = "|"
    """What stands between them."""


class Bars:
    options = BarsOptions

    def __init__(self, options: BarsOptions) -> None:
        self.columns, self.separator = options.columns, options.separator

    def infer(self, batch: Batch) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in self.columns])

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return schema

    def decoder(self, schema: pa.Schema) -> "BarsDecoder":
        for field in schema:
            if field.name not in self.columns or field.type != pa.string():
                raise ConfigurationError(f"--bars.columns: {field.name} {field.type} cannot be filled, only texts can")
        return BarsDecoder(schema, self.columns, self.separator)


class BarsDecoder:
    def __init__(self, schema: pa.Schema, columns: Sequence[str], separator: str) -> None:
        self.schema, self.columns, self.separator = schema, columns, separator

    def decode(self, batch: Batch) -> Decoded:
        rows, positions, skipped, rejections = [], [], [], []
        for position, value in enumerate(batch.values().to_pylist()):
            parts = [] if value is None else value.decode(errors="replace").split(self.separator)
            if value is None:
                skipped.append(position)
            elif len(parts) != len(self.columns):
                message = f"has {len(parts)} parts, and --bars.columns {len(self.columns)}"
                rejections.append(Rejection(position, "syntax", message))
            else:
                rows.append(dict(zip(self.columns, parts, strict=True)))
                positions.append(position)
        table = pa.Table.from_pylist(rows, schema=self.schema)
        return Decoded(table, pa.array(positions, pa.int64()), tuple(rejections), pa.array(skipped, pa.int64()))
