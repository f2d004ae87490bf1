# lines.py: a sink, a file with a line of JSON for each row
import json
import os
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from batcher.errors import SinkUnavailable
from batcher.options import Flag, SecretStr, Section
from batcher.protocols import SinkInfo
from batcher.records import Block


class LinesOptions(Section):
    """The target of `--sink lines:Lines`."""

    path: Annotated[str, Flag(metavar="FILE")]
    """File to append to."""
    signature: Annotated[SecretStr | None, Flag(metavar="SECRET")] = None
    """Written into every row; better from a variable or file than from here."""
    indent: Annotated[int | None, Field(ge=0), Flag(metavar="N")] = None
    """Spread a row over several lines."""


class Lines:
    options = LinesOptions

    def __init__(self, options: LinesOptions) -> None:
        self.path, self.indent = Path(options.path), options.indent
        self.more = {"signature": options.signature.get_secret_value()} if options.signature else {}

    def open(self) -> SinkInfo:
        self.file = self.path.open("a")
        return SinkInfo(str(self.path), None, ("_partition", "_offset"), capabilities=frozenset({"pin"}))

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        return proposed

    def write(self, block: Block) -> None:
        try:
            for row in block.table.to_pylist():
                self.file.write(json.dumps(row | self.more, default=str, indent=self.indent) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise SinkUnavailable(f"cannot append to {self.path}: {error.strerror}") from error

    def close(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
