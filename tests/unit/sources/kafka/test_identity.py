"""Another topic under the same name is told by its id, whenever it comes."""

from collections.abc import Callable, Collection, Mapping
from typing import cast

import pytest

from batcher.errors import DataGap
from batcher.records import Partition, Position
from batcher.sources.kafka.admin import Admin
from batcher.sources.kafka.identity import CHECK_EVERY_S, FRESH_S, FRESH_TIMES, LONGEST_FRESH_S, REST_S, Identity
from batcher.sources.kafka.metadata import StoredPosition
from batcher.testing.clock import ManualClock

OLD, NEW = "A" * 21 + "w", "B" * 21 + "w"
PART = Partition("events", 0)


class Brokers:
    """Answer with these ids; None: not at all."""

    def __init__(self, ids: Mapping[str, str | None] | None) -> None:
        self.ids = ids
        self.asked = 0
        self.think: Callable[[], None] = lambda: None

    def topic_ids(self, topics: Collection[str], _timeout_s: float) -> Mapping[str, str | None] | None:
        self.asked += 1
        self.think()
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


def test_many_commits_in_a_moment_ask_once_and_the_next_moment_asks_again() -> None:
    brokers, clock = Brokers({"events": OLD}), ManualClock()
    known = identity(brokers, clock)
    asked = brokers.asked

    for _ in range(100):
        known.check_for_commit(["events"])
    assert brokers.asked == asked + 1

    clock.advance(FRESH_S)
    known.check_for_commit(["events"])
    assert brokers.asked == asked + 2


def test_a_topic_that_was_not_asked_for_is_asked_for_at_its_first_commit() -> None:
    brokers = Brokers({"events": OLD, "orders": NEW})
    known = identity(brokers)
    known.learn(["orders"])
    known.check_for_commit(["events"])
    asked = brokers.asked

    known.check_for_commit(["events", "orders"])
    assert brokers.asked == asked + 1


def test_another_topic_in_that_moment_is_told_by_the_round_after_it() -> None:
    brokers, clock = Brokers({"events": OLD}), ManualClock()
    known = identity(brokers, clock)
    known.check_for_commit(["events"])
    brokers.ids = {"events": NEW}
    known.check_for_commit(["events"])

    clock.advance(FRESH_S)
    with pytest.raises(DataGap, match="created anew while it was read"):
        known.check_now_and_then(lambda: ["events"])


def test_in_doubt_the_next_commit_asks() -> None:
    brokers = Brokers({"events": OLD})
    known = identity(brokers)
    known.check_for_commit(["events"])
    brokers.ids = {"events": NEW}

    known.doubt()
    with pytest.raises(DataGap, match="created anew while it was read"):
        known.check_for_commit(["events"])


def test_where_an_answer_takes_long_it_is_good_for_longer_but_not_for_ever() -> None:
    brokers, clock = Brokers({"events": OLD}), ManualClock()
    known = identity(brokers, clock)
    brokers.think = lambda: clock.advance(0.02)
    known.check_for_commit(["events"])
    asked = brokers.asked

    clock.advance(FRESH_TIMES * 0.02 - 0.01)
    known.check_for_commit(["events"])
    assert brokers.asked == asked

    brokers.think = lambda: clock.advance(10.0)
    clock.advance(1.0)
    known.check_for_commit(["events"])
    clock.advance(LONGEST_FRESH_S)
    known.check_for_commit(["events"])
    assert brokers.asked == asked + 2


def test_commits_that_cannot_ask_go_on() -> None:
    brokers = Brokers({"events": OLD})
    known = identity(brokers)
    brokers.ids = None

    known.check_for_commit(["events"])
    known.check_for_commit(["events"])
