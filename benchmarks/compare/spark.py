"""Spark Structured Streaming on `local[2]`: from_json with the schema, Parquet with a checkpoint, AvailableNow.

    python -m benchmarks.compare.spark BOOTSTRAP TOPIC RECORDS SCRATCH
    python -m benchmarks.compare.spark --fetch              only fetch the Kafka connector into this environment

The topic is read in two batches. The first warms the JVM up; the rate is that of the second, from its start to its end
as Spark reports them, so that neither the JVM's start nor its compiler is in it. CPU is that of the JVM over both
batches; memory is the JVM's peak.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pyspark import __version__
from pyspark.sql import SparkSession
from pyspark.sql.functions import col, from_json

from benchmarks.compare.files import check_files
from benchmarks.compare.turn import Turn, take
from benchmarks.harness import Measured

MEMORY: Final = "2g"

# Spark has no unsigned types; each of these is the smallest that holds the column.
SCHEMA: Final = (
    "id BIGINT, ts TIMESTAMP, user_id INT, country STRING, product STRING, quantity SMALLINT, price DOUBLE, "
    "paid BOOLEAN, session STRING"
)


def session() -> Any:
    """Start the JVM; the connector is in this environment after the first time."""
    builder: Any = SparkSession.builder
    options = {
        "spark.jars.packages": f"org.apache.spark:spark-sql-kafka-0-10_2.13:{__version__}",
        "spark.jars.ivy": str(Path(sys.prefix) / "ivy"),
        "spark.driver.memory": MEMORY,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MILLIS",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
    builder = builder.master("local[2]")
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def work(turn: Turn) -> Measured:
    """Run the query to the end of the topic."""
    spark = session()
    jvm = int(spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid())  # noqa: SLF001  # there is no other way
    directory = turn.scratch / "out"
    read = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", turn.bootstrap)
        .option("subscribe", turn.topic)
        .option("startingOffsets", "earliest")
        # A few more than the half: what rounding leaves over would be a third batch.
        .option("maxOffsetsPerTrigger", turn.records // 2 + 100)
        .load()
    )
    rows = read.select(from_json(col("value").cast("string"), SCHEMA).alias("row")).select("row.*")
    writer = (
        rows.writeStream.format("parquet")
        .option("path", str(directory))
        .option("checkpointLocation", str(turn.scratch / "checkpoint"))
        .option("compression", "zstd")
        .trigger(availableNow=True)
    )
    before_s = cpu_s(jvm)
    query = writer.start()
    query.awaitTermination()
    used_s = cpu_s(jvm) - before_s
    rows_measured, seconds = timed([one for one in query.recentProgress if one["numInputRows"]])
    result = Measured(
        "spark", rows_measured, seconds, rows_measured / seconds, used_s / turn.records * 1e6, peak_mb(jvm)
    )
    spark.stop()
    check_files(turn, directory)
    return result


def timed(progress: list[Any]) -> tuple[int, float]:
    """Return the rows of all batches but the first, and the seconds from the start of the second to the end."""
    counted = progress[1:] or progress
    began = datetime.fromisoformat(counted[0]["timestamp"])
    last = counted[-1]
    ended = datetime.fromisoformat(last["timestamp"]) + timedelta(milliseconds=last["durationMs"]["triggerExecution"])
    return sum(one["numInputRows"] for one in counted), (ended - began).total_seconds()


def cpu_s(process: int) -> float:
    """Return the CPU seconds, of all threads, that a process has used so far."""
    # The name before the closing bracket may contain spaces.
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(process: int) -> float:
    """Return the most memory a process has had."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    if sys.argv[1:] == ["--fetch"]:
        session().stop()
    else:
        take(work, __doc__)
