from structlog.testing import capture_logs

from batcher.engine.refusals import QUIET_S, Refusals
from batcher.records import DeadLetter, Partition, Record
from batcher.testing.clock import ManualClock
from batcher.testing.values import make_batch, make_records

BATCH = make_batch(make_records(["x"] * 9, partition=Partition("events", 0)))


def letter(offset: int, reason: str = "syntax") -> DeadLetter:
    record = Record(Partition("events", 0), offset, None, None, b"secret")
    return DeadLetter(record, "decode", reason, "is not JSON")


def test_refusals_for_known_reasons_are_said_seldom_and_with_all_that_came_meanwhile() -> None:
    clock = ManualClock()
    refusals = Refusals(clock)
    with capture_logs() as lines:
        for offset in range(5):
            refusals.tell(BATCH, [letter(offset)])
        clock.advance(QUIET_S)
        refusals.tell(BATCH, [letter(5)])

    assert [(line["count"], line["offset"], line["total"]) for line in lines] == [(1, 0, 1), (5, 1, 6)]
    assert "secret" not in str(lines)


def test_a_new_reason_is_said_at_once() -> None:
    refusals = Refusals(ManualClock())
    with capture_logs() as lines:
        refusals.tell(BATCH, [letter(0)])
        refusals.tell(BATCH, [letter(1), letter(2, "overflow"), letter(3, "overflow")])
    assert [(line["reason"], line["reasons"]) for line in lines] == [
        ("syntax", {"syntax": 1}),
        ("overflow", {"overflow": 2, "syntax": 1}),
    ]
