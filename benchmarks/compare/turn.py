"""What the rivals share: their arguments, their last line and the proof that nothing is missing.

Only the standard library at the top: each rival has an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Measured

PARTITIONS: Final = 4
"""Of the topics, as `benchmarks.contenders` makes them."""

BATCH_ROWS: Final = 50_000
"""Rows of a batch wherever a rival lets one choose: what its rows cost in Python hides any difference above this."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Say what to load: every record of the topic, whose ids count from 0. `scratch` is an empty directory."""

    bootstrap: str
    topic: str
    records: int
    scratch: Path
    group: str

    def consumer(self) -> dict[str, Any]:
        """Return options of the client library for a consumer of the group that commits by itself."""
        return {
            "bootstrap.servers": self.bootstrap,
            "group.id": self.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }


def take(work: Callable[[Turn], Measured], about: str | None) -> None:
    """Do the work that the command line asks for and print what was measured as the last line."""
    take_one_of({"": work}, None, about)


def take_one_of(works: Mapping[str, Callable[[Turn], Measured]], flag: str | None, about: str | None) -> None:
    """Do the same where a flag names which work it is."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("records", type=int)
    parser.add_argument("scratch", type=Path)
    if flag:
        parser.add_argument(flag, choices=works, required=True, dest="work")
    else:
        parser.set_defaults(work="")
    given = parser.parse_args()
    turn = Turn(given.bootstrap, given.topic, given.records, given.scratch, f"bench-{uuid.uuid4()}")
    sys.stdout.write(json.dumps(asdict(works[given.work](turn))) + "\n")
    sys.stdout.flush()


def check_rows(turn: Turn, rows: int, distinct: int, total: int) -> None:
    """End the process unless the target holds each id once: so many rows, distinct ids and the sum of the ids."""
    expected = (turn.records, turn.records, turn.records * (turn.records - 1) // 2)
    if (rows, distinct, total) != expected:
        sys.exit(f"incomplete: {rows} rows, {distinct} ids and their sum {total}; expected {expected}")


def check_committed(turn: Turn) -> None:
    """End the process unless the group has committed everything."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(turn.consumer())
    partitions = consumer.list_topics(turn.topic, 30).topics[turn.topic].partitions
    committed = consumer.committed([TopicPartition(turn.topic, number) for number in partitions], 30)
    consumer.close()
    # A partition without a commit has a negative offset.
    done = sum(max(one.offset, 0) for one in committed)
    if done != turn.records:
        sys.exit(f"committed {done} of {turn.records} records")
