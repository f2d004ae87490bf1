import pytest

from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.errors import ConfigurationError, DeadLetterLimitExceeded
from batcher.records import DeadLetter, Partition, Record


def letter(position: int, reason: str = "syntax") -> tuple[int, DeadLetter]:
    record = Record(Partition("t", 0), position, None, None, b"secret")
    return position, DeadLetter(record, "decode", reason, "is not JSON")


def test_the_first_record_ever_being_bad_does_not_trip_it() -> None:
    DeadLetterLimit(DeadLetterPolicy()).observe(1, [letter(0)])


def test_a_topic_of_nothing_but_poison_stops_after_so_many_in_a_row() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0, max_consecutive=1000))
    limit.observe(600, [letter(i) for i in range(600)])

    with pytest.raises(DeadLetterLimitExceeded, match="1001 records in a row") as error:
        limit.observe(600, [letter(i) for i in range(600)])

    assert "secret" not in str(error.value)
    assert "--dlq.max-consecutive" in str(error.value)


def test_a_good_record_between_starts_the_row_anew() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0, max_consecutive=3))

    for _ in range(10):
        limit.observe(4, [letter(i) for i in range(3)])


def test_a_row_goes_on_over_the_end_of_a_batch() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0, max_consecutive=3))
    limit.observe(4, [letter(2), letter(3)])

    with pytest.raises(DeadLetterLimitExceeded):
        limit.observe(4, [letter(0), letter(1)])


def test_too_large_a_share_of_a_fair_sample_stops() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=0.1))
    limit.observe(900, [letter(i) for i in range(0, 900, 2)])

    with pytest.raises(DeadLetterLimitExceeded, match=r"--dlq\.max-ratio"):
        limit.observe(900, [letter(i) for i in range(0, 900, 2)])


def test_a_long_good_past_does_not_hide_a_bad_deploy() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=0.5, max_consecutive=10**9))
    for _ in range(100):
        limit.settle(limit.observe(100_000, []))

    bad_days = iter(range(15))

    def go_on() -> None:
        for _ in bad_days:
            limit.observe(100_000, [letter(i) for i in range(100_000)])

    with pytest.raises(DeadLetterLimitExceeded):
        go_on()


def test_one_bad_batch_after_a_long_good_past_is_enough() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=0.5, max_consecutive=10**9))
    for _ in range(9):
        limit.settle(limit.observe(100_000, []))

    with pytest.raises(DeadLetterLimitExceeded, match="5001 of the last 10000 records"):
        limit.observe(10_000, [letter(i) for i in range(6000)])


def test_a_small_batch_of_nothing_but_poison_is_let_through_after_a_good_past() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy())
    limit.settle(limit.observe(2000, []))

    limit.observe(900, [letter(i) for i in range(900)])


def test_the_message_names_the_most_frequent_reason_with_the_coordinates_of_one_example() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=0.1))
    bad = [letter(i, "overflow" if i % 3 else "null") for i in range(0, 2000, 2)]

    with pytest.raises(DeadLetterLimitExceeded, match=r"most of them for overflow, such as t\[0\] offset 2: "):
        limit.observe(2000, bad)


def test_a_search_for_refused_records_ends_after_so_many_inserts_of_a_batch() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_bisect=10))
    for _ in range(3):
        batch = limit.observe(100, [])
        for _ in range(5):
            limit.bisect(batch, "t[0] 0-99", ValueError("refused"))

    with pytest.raises(
        DeadLetterLimitExceeded, match=r"t\[0\] 0-99 .* 10 inserts: refused; .*--dlq\.max-bisect"
    ) as error:
        limit.bisect(batch, "t[0] 0-99", ValueError("refused"))
    assert isinstance(error.value.__cause__, ValueError)


def test_records_the_sink_refused_count_too() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0, max_consecutive=2))
    batch = limit.observe(10, [])

    with pytest.raises(DeadLetterLimitExceeded):
        limit.refuse(batch, [letter(i)[1] for i in range(3)])


@pytest.mark.parametrize("policy", [{"max_ratio": 0.0}, {"max_ratio": 1.1}, {"max_consecutive": 0}, {"max_bisect": -1}])
def test_impossible_limits_are_refused(policy: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"--dlq\.max"):
        DeadLetterPolicy(**policy)  # type: ignore[arg-type]


def test_a_run_that_could_load_nothing_stops_after_ten_records() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy())
    limit.observe(9, [letter(i) for i in range(9)])

    with pytest.raises(DeadLetterLimitExceeded, match="every record so far, 10, was refused, most of them for syntax"):
        limit.observe(1, [letter(0)])


def test_ten_of_thirty_at_the_start_are_let_through_when_one_record_was_good() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy())
    limit.settle(limit.observe(31, [letter(i) for i in range(30)]))
    limit.observe(30, [letter(i) for i in range(30)])


def test_what_the_sink_refuses_counts_at_the_start_as_well_and_what_is_skipped_does_not() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy())
    batch = limit.observe(13, [letter(i) for i in range(4)], skipped=3)

    with pytest.raises(DeadLetterLimitExceeded, match="every record so far, 10"):
        limit.refuse(batch, [one for _, one in (letter(i) for i in range(6))])


def test_a_ratio_of_one_lets_everything_through_at_the_start_too() -> None:
    DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0)).observe(100, [letter(i) for i in range(100)])


def test_a_batch_that_is_decoded_again_counts_once() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0, max_consecutive=10))
    limit.observe(1, [])
    for _ in range(5):
        limit.take_back(limit.observe(8, [letter(i) for i in range(8)]))
    limit.refuse(limit.observe(8, [letter(i) for i in range(8)]), [])


def test_a_batch_that_is_not_durable_yet_is_no_reason_to_let_another_through() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy())
    first = limit.observe(12, [])
    second = limit.observe(12, [])

    with pytest.raises(DeadLetterLimitExceeded, match="every record so far, 12"):
        limit.refuse(second, [letter(i)[1] for i in range(12)])
    limit.settle(first)
    limit.refuse(limit.observe(12, []), [letter(i)[1] for i in range(12)])


def test_a_batch_that_comes_again_takes_back_what_it_counted_and_nothing_of_others() -> None:
    limit = DeadLetterLimit(DeadLetterPolicy(max_consecutive=10**9))
    limit.settle(limit.observe(1000, []))
    again = limit.observe(400, [letter(i) for i in range(180)])
    limit.settle(limit.observe(100, [letter(i) for i in range(50)]))
    limit.take_back(again)

    assert (limit._tally.seen, limit._tally.refused, dict(limit._tally.reasons)) == (1100, 50, {"syntax": 50})
