from collections.abc import Sequence
from typing import Any

import pytest

from batcher.records import Partition
from tests.harness.census import Coordinate
from tests.harness.processes import Event
from tests.harness.targets import Loaded
from tests.harness.verdict import Deeds, Verdict, judged

P = Partition("orders", 0)
IDS = {(P, offset): 100 + offset for offset in range(5)}
POISON = {(P, 4)}
ROWS = [100, 101, 102, 103]


def judge(
    rows: Sequence[int] = ROWS,
    places: Sequence[Coordinate] = (),
    letters: Sequence[Coordinate] = ((P, 4),),
    runs: Sequence[Sequence[Event]] = (),
) -> Verdict:
    loaded = Loaded(places, sum(rows), rows)
    return judged(IDS, POISON, loaded, letters, Deeds(seed=7, kills=1, stops=0, hit={}, runs=runs))


def written(*ranges: str, replayed: bool = False, suppressed: int = 0) -> dict[str, Any]:
    return {"event": "batch_written", "ranges": list(ranges), "replayed": replayed, "suppressed": suppressed}


def test_each_record_once_in_one_place_is_exact() -> None:
    verdict = judge()
    assert verdict.exact
    assert (verdict.lost, verdict.duplicated, verdict.rows, verdict.letters) == (0, 0, 4, 1)


def test_a_row_that_is_missing_is_lost() -> None:
    verdict = judge(rows=[100, 101, 103])
    assert not verdict.complete
    assert (verdict.lost, verdict.duplicated) == (1, 0)


def test_every_row_beyond_the_first_of_a_record_is_a_duplicated_one() -> None:
    verdict = judge(rows=[*ROWS, 103, 103, 102])
    assert verdict.complete
    assert not verdict.exact
    assert (verdict.lost, verdict.duplicated) == (0, 3)


def test_a_row_that_nobody_produced_is_foreign_and_no_duplicated_one() -> None:
    verdict = judge(rows=[*ROWS, 999])
    assert not verdict.complete
    assert (verdict.lost, verdict.duplicated) == (0, 0)


def test_a_row_at_the_coordinates_of_another_record_is_seen() -> None:
    places = [(P, offset) for offset in range(4)]
    assert judge(places=places).exact
    assert not judge(places=[places[1], places[0], *places[2:]]).complete


@pytest.mark.parametrize("letters", [(), ((P, 3), (P, 4)), ((P, 3),)], ids=["missing", "one more", "of another"])
def test_dead_letters_have_to_be_those_of_the_poison(letters: Sequence[Coordinate]) -> None:
    assert not judge(letters=letters).exact


def test_a_letter_stored_twice_is_counted_and_no_failure() -> None:
    verdict = judge(letters=[(P, 4), (P, 4)])
    assert verdict.exact
    assert (verdict.letters, verdict.repeated_letters) == (1, 1)


def test_a_replay_found_its_rows_when_they_were_suppressed_or_had_been_written() -> None:
    died = {"event": "crash_point", "point": "after_write", "ranges": ["orders[0] 3-4"]}
    verdict = judge(
        runs=[
            [written("orders[0] 0-1")],
            [written("orders[0] 0-1", replayed=True), written("orders[0] 2-2", replayed=True), died],
            [written("orders[0] 3-4", replayed=True), written("orders[0] 5-5", replayed=True, suppressed=1)],
        ]
    )
    assert (verdict.replays, verdict.present, verdict.suppressed) == (4, 3, 1)


def test_the_first_assignment_of_a_run_is_no_rebalance() -> None:
    given = {"event": "partitions_assigned", "positions": {"orders[0]": 0}}
    nothing = {"event": "partitions_assigned", "positions": {}}
    assert judge(runs=[[given], [nothing, given, given]]).rebalances == 1
