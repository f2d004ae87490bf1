"""Places in a log as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from batcher.cli.verbs.run import parser
from batcher.settings import UsageError, load
from batcher.sources.kafka.settings import Kafka
from batcher.sources.starts import GivenOffsets, nothing_between, place_of, place_text


def test_offsets_are_read_by_partition_and_by_topic() -> None:
    place = place_of(place_text("0=1000, orders:1=5"))
    assert isinstance(place, GivenOffsets)
    assert [place.of("orders", 0), place.of("orders", 1), place.of("other", 1)] == [1000, 5, None]


def test_how_long_ago_is_a_time() -> None:
    before = datetime.now(UTC).timestamp() * 1000
    place = place_of(place_text("1h30m"))
    assert isinstance(place, int)
    assert -1 <= place - (before - 5_400_000) < 60_000


@pytest.mark.parametrize("text", ["0=", "a=1", "0=1,0=2", "0=-1", "yesterday", "2 parsecs", "0=1;1=2"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|names) "):
        place_text(text)


@pytest.mark.parametrize(
    ("start", "end", "nothing"),
    [
        ("earliest", "latest", False),
        ("latest", "latest", True),
        ("earliest", "earliest", True),
        ("2000", "1000", True),
        ("1000", "2000", False),
        ("0=5", "0=5", True),
        ("0=5", "1=9", True),
        ("0=5,1=2", "0=5,1=3", False),
        ("0=5", "latest", False),
    ],
)
def test_bounds_with_nothing_between_them_are_told_from_the_texts(start: str, end: str, nothing: bool) -> None:
    assert nothing_between(start, end) is nothing


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--kafka.start", "latest", "--kafka.end", "latest"], "nothing is between"),
        (["--kafka.start", "2h", "--kafka.end", "3h"], "nothing is between"),
        (["--kafka.end", "latest", "--workers", "2"], "is for one process"),
    ],
)
def test_a_run_with_an_end_that_cannot_be_is_refused(more: list[str], said: str) -> None:
    flags = ["--sink", "null", "-b", "k", "-t", "t", "-g", "g", *more]
    with pytest.raises(UsageError, match=said):
        load(parser(), flags, {}, runnable=True)


def test_a_run_with_an_end_has_a_group_of_its_own_which_the_same_bounds_find_again() -> None:
    live = Kafka(brokers="k", topics=("t",), group="g")
    assert live.as_run() is live
    one, again, other = (live.model_copy(update={"end": end}).as_run() for end in ("latest", "latest", "0=5"))
    assert one.group == again.group != other.group
    assert str(one.group).startswith("g.backfill-")
    assert one.beside == "g"
    # A worker, or a verb, that asks once more.
    assert one.as_run().group == one.group
