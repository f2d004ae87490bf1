"""Run statements in embedded ClickHouse, in a short process of their own.

One process at a time can have a path open, and a process only one path. So neither the demo nor its tests load the
engine themselves. `run` starts `python -m batcher.demo.engine PATH`, which takes the statements as a JSON list from
stdin and answers with one Arrow stream after another.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from batcher.embedded.clickhouse_http import EngineMissing, chdb_connection
from batcher.errors import ConfigurationError

TIMEOUT_S: Final = 120.0


def run(path: Path, statements: Sequence[str]) -> list[pa.Table]:
    """Run statements and return the rows of those that have some; raise ConfigurationError with the engine's text."""
    done = subprocess.run(  # noqa: S603  # our own module
        [sys.executable, "-m", "batcher.demo.engine", str(path)],
        input=json.dumps(list(statements)).encode(),
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise ConfigurationError(
            f"the embedded ClickHouse in {path} does not work: {lines[-1]}; batcher demo --sink parquet does without"
        )
    source = pa.BufferReader(done.stdout)
    tables = []
    while source.tell() < len(done.stdout):
        tables.append(pa.ipc.open_stream(source).read_all())
    return tables


def main() -> int:
    """Serve one call of `run`."""
    try:
        engine = chdb_connection(Path(sys.argv[1]))
        for statement in json.load(sys.stdin):
            sys.stdout.buffer.write(engine.query(statement, "ArrowStream").bytes())
        engine.close()
    except (EngineMissing, RuntimeError) as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
