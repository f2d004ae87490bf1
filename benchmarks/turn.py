"""Give one load of a topic its turn in a fresh process: any sink, any flags, any shape and number of partitions."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.contenders import COORDINATES, engine, pipeline
from benchmarks.harness import Measured, Stopwatch, TurnFailed, reason_of
from benchmarks.shapes import DOCUMENTS, SHAPES

CONSUME: Final = "consume"
SINKS: Final = (CONSUME, "null", "parquet", "clickhouse")


@dataclass(frozen=True, slots=True)
class Turn:
    """Say what is to be loaded, from where, where to and how. `sink` is `consume` for the bare client library."""

    name: str
    sink: str
    bootstrap: str
    topic: str
    partitions: int
    records: int
    shape: str = "standard"
    flags: Sequence[str] = ()

    def take(self) -> Measured:
        """Load everything in a fresh process; raise TurnFailed when it fails or rows are missing."""
        command = [sys.executable, "-m", "benchmarks.turn", json.dumps(asdict(self))]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise TurnFailed(f"exit code {done.returncode}: {reason_of(done.stderr)}")
        return Measured(**json.loads(done.stdout.splitlines()[-1]))

    def run(self, scratch: Path) -> Measured:
        """Load everything in this process."""
        if self.sink == CONSUME:
            return self._consume()
        flags = ["--sink", self.sink]
        if self.sink == "parquet":
            flags += ["--parquet.path", str(scratch / "out")]
        if self.sink == "clickhouse":
            shape = SHAPES[self.shape]
            dsn = engine(scratch, "events", COORDINATES, shape.columns, shape.order)
            flags += ["--clickhouse.dsn", dsn, "--clickhouse.table", "events", *shape.clickhouse_flags]
        if not SHAPES[self.shape].template and self.sink != "clickhouse":
            # A first batch has too few of the many kinds to say what the fields of all of them are.
            flags += ["--decode.schema", str(_schema_of(self.shape, scratch))]
        if SHAPES[self.shape].poisoned:
            flags += ["--dlq.path", str(scratch / "dead")]
        if self.sink != "null":
            flags += ["--delivery", "exactly-once"]
        return pipeline(self.name, self.bootstrap, self.topic, self.records, *flags, *self.flags)

    def _consume(self) -> Measured:
        """Call `consume()` and drop the messages, with the garbage collector as the pipeline has it."""
        from confluent_kafka import Consumer, TopicPartition

        from batcher.cli.support.tuning import tune_collector
        from batcher.sources.kafka.options import KafkaOptions

        tune_collector()
        options = KafkaOptions(brokers=self.bootstrap, topics=(self.topic,), group="bench-consume")
        consumer = Consumer({**options.librdkafka(), "enable.partition.eof": "false"})
        consumer.assign([TopicPartition(self.topic, number, 0) for number in range(self.partitions)])
        watch = Stopwatch()
        seen = 0
        while seen < self.records:
            watch.first(again=not seen)
            seen += len(consumer.consume(10_000, 0.2))
        watch.last()
        consumer.close()
        return watch.measured(self.name, seen)


def _schema_of(shape: str, scratch: Path) -> Path:
    """Write the schema that all different records of a shape have, and return the file."""
    import pyarrow as pa

    from batcher.formats.json.format import JsonFormat
    from batcher.testing.values import make_batch, make_records

    schema = JsonFormat().infer(make_batch(make_records(list(SHAPES[shape].records(DOCUMENTS)))))
    assert schema is not None
    path = scratch / "schema.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema):
        pass
    return path


def main() -> None:
    """Be the fresh process."""
    turn = Turn(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="batcher-bench-") as scratch:
        sys.stdout.write(json.dumps(asdict(turn.run(Path(scratch)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
