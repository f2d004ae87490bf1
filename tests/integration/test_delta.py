"""The command line with a Delta table: loaded, verified, repaired, replayed into, measured, by several workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batcher.testing.kafka import Broker
from tests.harness.processes import Ending, run

pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]

RECORDS = 300
BAD = (7, 50)


class Scene:
    """Load a topic of two partitions into a table, and ask about it."""

    def __init__(self, broker: Broker, topic: str, group: str, directory: Path) -> None:
        self.path = directory / "table"
        self.letters = directory / "letters"
        self.target = ("--sink", "delta", "--delta.path", str(self.path))
        self.queue = ("-b", broker.bootstrap, "-g", group, "--dlq.path", str(self.letters))
        self.topic = topic
        self.broker = broker

    def __call__(self, verb: str, *flags: str) -> Ending:
        return run(verb, *self.target, *self.queue, "-t", self.topic, *flags)

    @property
    def table(self) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self.path)

    def offsets(self) -> list[tuple[int, int]]:
        rows = self.table.to_pyarrow_table(columns=["_partition", "_offset"])
        return sorted(zip(rows["_partition"].to_pylist(), rows["_offset"].to_pylist(), strict=True))

    def produce(self, first: int) -> None:
        for number in range(2):
            values = [json.dumps({"id": n, "name": f"n{n % 7}"}) for n in range(first, first + RECORDS)]
            for offset in BAD if not first else ():
                values[offset] = json.dumps({"id": 7, "name": 7})
            self.broker.produce(self.topic, values, partition=number)


@pytest.fixture
def scene(broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path) -> Scene:
    made = Scene(broker, new_topic(2), new_group(), tmp_path)
    made.produce(0)
    return made


def expected(records: int = RECORDS, without: tuple[int, ...] = BAD) -> list[tuple[int, int]]:
    return [(number, offset) for number in range(2) for offset in range(records) if offset not in without]


def facts(done: Ending, code: int = 0) -> dict[str, Any]:
    assert done.code == code, done.stdout + done.stderr
    found: dict[str, Any] = done.lines[-1]
    return found


def test_what_is_loaded_is_verified_to_the_record_repaired_and_completed_with_dead_letters(scene: Scene) -> None:
    loaded = facts(scene("run", "--until-eof", "--json"))
    assert loaded["dead_lettered"] == 2 * len(BAD)
    assert loaded["delivery"] == "exactly-once"
    assert scene.offsets() == expected()
    # All of it fits into one batch, over both partitions.
    assert scene.table.version() == 1
    assert facts(scene("verify", "--json"))["exit"] == 0

    # Another tool takes rows away and writes some a second time.
    scene.table.delete("_partition = 1 AND _offset BETWEEN 100 AND 119")
    rows = scene.table.to_pyarrow_table()
    twice = rows.filter(pc.and_(pc.equal(rows["_partition"], 0), pc.less(rows["_offset"], 5)))
    deltalake.write_deltalake(scene.table, pa.table(twice), mode="append")
    found = facts(scene("verify", "--json"), code=scene("verify").code)
    assert found["exit"] != 0
    assert {one["partition"]: (one["missing"], one["duplicated"]) for one in _accounts(found)} == {
        0: (0, 5),
        1: (20, 0),
    }
    mended = facts(scene("repair", "--yes", "--remove-duplicates", "--json"))
    assert mended["repaired"] == {"loaded": 25, "dead_lettered": 0, "removed": 5, "refused": 0}
    assert scene.offsets() == expected()

    # What was refused lies below the position by now. It is loaded all the same, once.
    replay = ("dlq", "replay", *scene.target, *scene.queue[2:], "--json")
    for turn in range(2):
        done = run(*replay, "--decode.text", "any")
        assert done.code == 0, done.stdout + done.stderr
        assert done.lines[-1]["replayed"] == (0 if turn else 2 * len(BAD)), done.stdout
    assert scene.offsets() == expected(without=())


def _accounts(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "partition": one["partition"],
            "missing": one["missing"]["offsets"] if isinstance(one["missing"], dict) else one["missing"],
            "duplicated": one["duplicated"]["offsets"] if isinstance(one["duplicated"], dict) else one["duplicated"],
        }
        for one in found["partitions"]
    ]


def test_two_workers_that_start_at_once_on_a_new_table_share_it(scene: Scene) -> None:
    scene.produce(RECORDS)
    loaded = facts(scene("run", "--until-eof", "--workers", "2", "--json", "--batch.max-rows", "100"))
    assert loaded["written"] == 2 * (2 * RECORDS - len(BAD))
    assert scene.offsets() == expected(2 * RECORDS)
    assert facts(scene("verify", "--json"))["exit"] == 0


def test_what_would_store_records_twice_and_what_is_beyond_the_commit_is_refused(
    scene: Scene, new_group: Callable[[], str]
) -> None:
    facts(scene("run", "--until-eof", "--json"))
    refused = scene("run", "--until-eof", "--on-existing", "write")
    assert refused.code == 78
    assert "stores no record a second time" in refused.stderr
    # Another group has committed nothing.
    other = (*scene.target, "-b", scene.broker.bootstrap, "-t", scene.topic, "-g", new_group())
    halted = run("run", *other, "--until-eof", "--dlq.path", str(scene.letters))
    assert halted.code == 78
    assert "give --on-existing skip" in halted.stderr


def test_the_verbs_that_only_look_make_no_table(scene: Scene) -> None:
    for verb, said in (("schema", "name"), ("check", "guarantee: exactly-once")):
        done = scene(verb)
        assert said in done.stdout, done.stderr
    done = scene("bench", "--target", "scratch", "--records", "300")
    assert done.code == 0, done.stdout + done.stderr
    assert not scene.path.exists()
