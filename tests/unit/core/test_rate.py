"""A rate is kept on average, nothing is saved up, and a stop goes faster only where its time would not be enough."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.core.rate import RateLimit, RatePolicy
from batcher.errors import ConfigurationError


def play(limit: RateLimit, rows: list[int], now: float = 0.0) -> list[float]:
    """Begin batches as soon as they may be and return when that was."""
    begun = []
    for count in rows:
        now += limit.wait_s(now)
        limit.begin(count, now)
        begun.append(now)
    return begun


@settings(deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30), st.floats(0.5, 5000))
def test_rows_of_any_batches_are_begun_at_the_rate(rows: list[int], rate: float) -> None:
    begun = play(RateLimit(RatePolicy(rate)), rows)

    assert begun[-1] == pytest.approx(sum(rows[:-1]) / rate)


def test_an_idle_hour_is_not_saved_up() -> None:
    limit = RateLimit(RatePolicy(100))
    play(limit, [100])

    assert play(limit, [100, 100, 100], now=3600.0) == [3600.0, 3601.0, 3602.0]


def test_a_batch_has_at_most_the_rows_of_a_second() -> None:
    assert RatePolicy(500).rows_of_batch(100_000) == 500
    assert RatePolicy(500).rows_of_batch(100) == 100
    assert RatePolicy(0.1).rows_of_batch(100) == 1


@settings(deadline=None)
@given(st.integers(0, 100_000), st.integers(0, 5000), st.floats(1, 5000))
def test_a_stop_is_over_in_its_time_whatever_waits(waiting: int, before: int, rate: float) -> None:
    limit = RateLimit(RatePolicy(rate, drain_s=10.0))
    limit.begin(before, 0.0)
    limit.hurry(waiting, 0.0)
    rows = [100] * (waiting // 100) + [waiting % 100]

    assert play(limit, rows)[-1] <= 10.0 + 1e-6


def test_a_stop_with_little_to_write_keeps_the_rate() -> None:
    limit = RateLimit(RatePolicy(100, drain_s=10.0))
    limit.begin(100, 0.0)
    limit.hurry(300, 0.0)

    assert play(limit, [100, 100, 100]) == pytest.approx([1.0, 2.0, 3.0])


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--batch\.rate"):
        RatePolicy(0)
