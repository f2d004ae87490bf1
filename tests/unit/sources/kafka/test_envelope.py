"""What stands before a note: read back as it was, by itself, and not at all for earlier versions."""

import pytest

from batcher.core.intents import MAX_NOTE
from batcher.records import Position
from batcher.sources.kafka.envelope import Stored, pack, unpack

TOPIC_ID = "0SGPdqKs_zSjlJSN-u2IPQ"
BROKERS_TAKE = 4_000


@pytest.mark.parametrize("note", ["", '{"v":1,"s":3,"r":[[9,-5]],"w":"a-0"}', "anything", '{"t":"x"}'])
@pytest.mark.parametrize("topic_id", [TOPIC_ID, None])
def test_what_was_committed_is_read_back_with_the_id_of_its_topic(note: str, topic_id: str | None) -> None:
    stored = Stored(Position(7, note), topic_id)

    assert unpack(pack(stored)) == stored


def test_the_note_of_a_version_without_ids_is_its_own() -> None:
    assert unpack(Position(7, '{"v":1,"s":3}')) == Stored(Position(7, '{"v":1,"s":3}'), None)


def test_the_largest_note_with_an_id_is_taken_by_brokers() -> None:
    assert len(pack(Stored(Position(7, "x" * MAX_NOTE), TOPIC_ID)).note) < BROKERS_TAKE
