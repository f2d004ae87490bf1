"""How fast a topic of NSQ is read: by the client alone, through the pipeline, and with more in flight.

    python -m benchmarks.bench_nsq
    python -m benchmarks.bench_nsq --records 400000 --in-flight 2500,10000

A real nsqd on the same machine, filled before each turn. `client` receives and finishes; the others are the whole
program as a process, without its start.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from batcher.embedded.nsq import Nsqd
from batcher.generate.events import CHUNK, EventGenerator
from batcher.protocols.publisher import Outgoing
from batcher.sources.nsq.gateway import gateway_of
from batcher.sources.nsq.publisher import NsqPublisher
from batcher.sources.nsq.settings import Nsq
from benchmarks.harness import RESULTS, Measured, Stopwatch, in_rounds, write

BASELINE: Final = "client"


def fill(told: Nsq, records: int) -> float:
    """Publish orders and return how many a second it took."""
    began = time.perf_counter()
    with closing(NsqPublisher(told)) as publisher:
        events = EventGenerator(seed=1)
        left = records
        while left:
            chunk = [Outgoing(value) for value in events.take(min(left, CHUNK))]
            for first in range(0, len(chunk), publisher.batch):
                refused = publisher.publish(chunk[first : first + publisher.batch], 30.0)
                assert not refused, refused[0]
            left -= len(chunk)
    return records / (time.perf_counter() - began)


def client(told: Nsq, records: int) -> Measured:
    """Receive and finish everything."""
    watch = Stopwatch()
    with closing(gateway_of(told, longest_batch_s=1.0)) as gateway:
        gateway.open()
        watch.first()
        done = 0
        while done < records:
            some = gateway.receive(told.max_in_flight, 1 << 24, 1.0)
            gateway.acknowledge([one.receipt for one in some], 10.0)
            done += len(some)
        watch.last()
    return watch.measured(BASELINE, records)


def pipeline(name: str, told: Nsq, records: int) -> Measured:
    """Load everything with the program; CPU and memory are those of its process, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as directory:
        sink = ["null"] if name.startswith("null") else ["parquet", "--parquet.path", directory]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "batcher", "--source", "nsq", "--nsq.topic", told.topic or ""),
                *("--nsq.channel", told.channel or "", "--nsq.nsqd", ",".join(told.nsqd)),
                *("--nsq.max-in-flight", str(told.max_in_flight), "--until-eof", "--json", "--log.level", "error"),
                *("--sink", *sink),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["written"] == records, facts
    # An end is believed when nothing has come for a second, which is no part of the work.
    seconds = facts["seconds"] - 1.0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # The largest child so far: a turn before this one may have been larger.
    return Measured(name, records, seconds, records / seconds, cpu_s / records * 1e6, after.ru_maxrss / 1024)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", default="2500,10000", help="comma-separated")
    parser.add_argument("--json", type=Path, default=RESULTS / "nsq.json")
    arguments = parser.parse_args(argv)
    allowed = [int(text) for text in arguments.in_flight.split(",")]
    names = [BASELINE, *(f"{sink}, {count} in flight" for sink in ("null", "parquet") for count in allowed)]
    published: list[float] = []

    with Nsqd("-max-rdy-count=100000", "-mem-queue-size=10000000") as nsqd:

        def turn(name: str) -> Measured:
            count = int(name.split()[1]) if "," in name else allowed[0]
            told = Nsq(topic=f"t{uuid.uuid4().hex}", channel="c", nsqd=(nsqd.address,), max_in_flight=count)
            published.append(fill(told, arguments.records))
            try:
                return client(told, arguments.records) if name == BASELINE else pipeline(name, told, arguments.records)
            finally:
                nsqd.get(f"/topic/delete?topic={told.topic}", b"")

        results = in_rounds(names, arguments.rounds, turn)
    remark = f"Published at {min(published):,.0f} to {max(published):,.0f} messages a second."
    print(
        write(
            arguments.json,
            results,
            {"records": arguments.records, "in_flight": allowed},
            baseline=BASELINE,
            title="NSQ, orders of about 180 bytes",
            remarks=[remark],
        )
    )


if __name__ == "__main__":
    main()
