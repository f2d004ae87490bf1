"""A sink as somebody outside this project writes it, for `--sink sink_author:LinesSink`; a test runs it.

mypy --strict has to accept it as a sink and its class as a plugin.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from batcher.errors import SinkUnavailable
from batcher.protocols import SinkInfo
from batcher.records import Block
from sinks import SinkPlugin


class LinesSink:
    """Append every row to a file, as a line of JSON."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self.path = Path(str(options["path"]))

    def open(self) -> SinkInfo:
        self.file = self.path.open("a")
        return SinkInfo(str(self.path), None, ("_partition", "_offset"), capabilities=frozenset({"pin"}))

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        return proposed

    def write(self, block: Block) -> None:
        try:
            self.file.writelines(json.dumps(row, default=str) + "\n" for row in block.table.to_pylist())
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise SinkUnavailable(f"cannot append to {self.path}: {error.strerror}") from error

    def close(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


plugin: SinkPlugin = LinesSink
