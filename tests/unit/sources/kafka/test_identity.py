"""Another topic under the same name is told by its id, whenever it comes."""

from collections.abc import Collection, Mapping
from typing import cast

import pytest

from batcher.errors import DataGap
from batcher.records import Partition, Position
from batcher.sources.kafka.admin import Admin
from batcher.sources.kafka.identity import CHECK_EVERY_S, REST_S, Identity
from batcher.sources.kafka.metadata import StoredPosition
from batcher.testing.clock import ManualClock

OLD, NEW = "A" * 21 + "w", "B" * 21 + "w"
PART = Partition("events", 0)


class Brokers:
    """Answer with these ids; None: not at all."""

    def __init__(self, ids: Mapping[str, str | None] | None) -> None:
        self.ids = ids
        self.asked = 0

    def topic_ids(self, topics: Collection[str], _timeout_s: float) -> Mapping[str, str | None] | None:
        self.asked += 1
        return None if self.ids is None else {name: self.ids[name] for name in topics if name in self.ids}


def identity(brokers: Brokers, clock: ManualClock | None = None) -> Identity:
    made = Identity(cast(Admin, brokers), clock or ManualClock())
    made.learn(["events"])
    return made


def test_the_same_topic_stays_the_same() -> None:
    known = identity(Brokers({"events": OLD}))

    known.check(["events"])
    known.match({PART: StoredPosition(Position(3), OLD)})

    assert known["events"] == OLD


def test_a_topic_created_anew_while_it_is_read_is_told_by_the_next_question() -> None:
    brokers = Brokers({"events": OLD})
    known = identity(brokers)

    brokers.ids = {"events": NEW}

    with pytest.raises(DataGap, match="topic events was deleted and created anew while it was read"):
        known.check(["events"])
    with pytest.raises(DataGap, match="created anew while it was read"):
        known.learn(["events"])


def test_a_commit_for_another_topic_of_the_name_is_told_and_what_to_do_said() -> None:
    known = identity(Brokers({"events": NEW}))

    with pytest.raises(DataGap, match=r"events\[0\]: offset 3 was committed for another topic .* reset the group's"):
        known.match({PART: StoredPosition(Position(3), OLD)})


def test_a_commit_without_an_id_is_taken() -> None:
    known = identity(Brokers({"events": NEW}))

    known.match({PART: StoredPosition(Position(3), None)})

    assert known["events"] == NEW


def test_the_id_of_a_commit_is_kept_where_the_brokers_do_not_tell() -> None:
    known = identity(Brokers(None))

    known.match({PART: StoredPosition(Position(3), OLD)})

    assert known["events"] == OLD


def test_a_topic_that_is_deleted_is_not_another_one() -> None:
    brokers = Brokers({"events": OLD})
    known = identity(brokers)

    brokers.ids = {"events": None}
    known.check(["events"])

    assert known["events"] == OLD


def test_the_brokers_are_asked_now_and_then_and_at_once_in_doubt() -> None:
    brokers, clock = Brokers({"events": OLD}), ManualClock()
    known = identity(brokers, clock)
    known.check_now_and_then(lambda: ["events"])
    asked = brokers.asked

    known.check_now_and_then(lambda: ["events"])
    assert brokers.asked == asked

    known.doubt()
    known.check_now_and_then(lambda: ["events"])
    clock.advance(CHECK_EVERY_S)
    known.check_now_and_then(lambda: ["events"])
    assert brokers.asked == asked + 2


def test_brokers_that_do_not_answer_are_left_alone_for_a_while() -> None:
    brokers, clock = Brokers({"events": OLD}), ManualClock()
    known = identity(brokers, clock)
    brokers.ids = None
    known.check(["events"])
    asked = brokers.asked

    known.check(["events"])
    assert brokers.asked == asked

    clock.advance(REST_S)
    known.check(["events"])
    assert brokers.asked == asked + 1

    clock.advance(REST_S)
    known.check(["events"])
    assert brokers.asked == asked + 1
