"""More workers come at once where there is more to do, and go one by one after a minute of less."""

from __future__ import annotations

import pytest

from batcher.cli.support.scaling import DOWN_AFTER_S, Backlog, ScalePolicy, Scaler
from batcher.testing.clock import ManualClock


@pytest.fixture
def scaler() -> Scaler:
    return Scaler(ScalePolicy(least=1, most=4, records_each=1000))


@pytest.mark.parametrize(
    ("records", "wanted"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (2500, 3), (4000, 4), (1_000_000, 4)]
)
def test_there_is_a_worker_for_each_share_of_the_backlog_within_the_bounds(
    scaler: Scaler, records: int, wanted: int
) -> None:
    assert scaler.wanted([Backlog(records)], 1, 0.0) == wanted


def test_shares_of_workers_add_up_and_a_queue_that_all_see_counts_once(scaler: Scaler) -> None:
    assert scaler.wanted([Backlog(900), Backlog(900)], 1, 0.0) == 2
    assert scaler.wanted([Backlog(1900, whole=True), Backlog(1800, whole=True)], 1, 0.0) == 2


def test_before_anything_is_known_nothing_changes(scaler: Scaler) -> None:
    assert scaler.wanted([], 3, 0.0) == 3


def test_one_goes_after_each_minute_of_calm_and_none_before(scaler: Scaler) -> None:
    clock = ManualClock()
    running, seen = 4, []
    for _ in range(int(4 * DOWN_AFTER_S)):
        fewer = scaler.wanted([Backlog(0)], running, clock())
        seen += [clock()] if fewer < running else []
        running = fewer
        clock.advance(1.0)

    assert running == 1
    assert [at - seen[0] for at in seen] == [0.0, DOWN_AFTER_S, 2 * DOWN_AFTER_S]


def test_a_moment_with_more_to_do_begins_the_minute_anew(scaler: Scaler) -> None:
    assert scaler.wanted([Backlog(0)], 2, 0.0) == 2
    assert scaler.wanted([Backlog(1500)], 2, 59.0) == 2
    assert scaler.wanted([Backlog(0)], 2, 61.0) == 2
    assert scaler.wanted([Backlog(0)], 2, 121.0) == 1
