"""Several processes of one group on one topic, from their start to their common end."""

from __future__ import annotations

import signal
import time
import uuid
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Final

from batcher.testing.kafka import Broker
from benchmarks.freshness import spent_by_thread
from benchmarks.harness import Measured
from benchmarks.steady import CommitWatch
from tests.harness.processes import BatcherProcess

PATIENCE_S: Final = 600.0


def crew(at: tuple[Broker, str, int], records: int, workers: int, directory: Path) -> Measured:
    """Load a topic (its broker, name and partitions) into one Parquet directory with processes started together.

    The time is from the first assignment of the first to the last commit of the last; joining one after the other and
    the rebalances between are in it. CPU and peak memory are those of all processes together, their starts included.
    Raise RuntimeError unless every record is written once.
    """
    broker, topic, partitions = at
    group = f"bench-{uuid.uuid4().hex[:12]}"
    flags = ("-b", broker.bootstrap, "-t", topic, "-g", group, "--sink", "parquet", "--parquet.path", str(directory))
    with ExitStack() as stack:
        watch = stack.enter_context(CommitWatch(broker, group, topic, partitions))
        processes = [stack.enter_context(BatcherProcess(*flags)) for _ in range(workers)]
        ended = watch.wait(records, PATIENCE_S)
        cpu_s = sum(sum(spent_by_thread(process.pid).values()) for process in processes)
        peak_bytes = sum(process.memory_bytes("VmHWM") for process in processes)
        began = min(_assigned(process) for process in processes)
        for process in processes:
            process.signal(signal.SIGTERM)
        codes = [process.wait() for process in processes]
        written = sum(process.summary["written"] for process in processes)
    if any(codes) or written != records:
        raise RuntimeError(f"{workers} processes wrote {written} of {records} records, exit codes {codes}")
    seconds = ended - began
    name = f"{workers} processes" if workers > 1 else "1 process"
    return Measured(name, records, seconds, records / seconds, cpu_s / records * 1e6, peak_bytes / (1 << 20))


def _assigned(process: BatcherProcess) -> float:
    """Return the epoch second at which a process first had a partition, or now for one that never had."""
    for event in process.named("partitions_assigned"):
        if event["positions"]:
            return datetime.fromisoformat(event["timestamp"]).timestamp()
    return time.time()
