"""What the page says in numbers: ages, the last hour, trends, and the first glance that is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.records import Partition, Range
from batcher.telemetry.dashboard import feed as feeds
from batcher.telemetry.dashboard.ages import Ages, added
from batcher.telemetry.dashboard.feed import Feed, Mailbox
from batcher.telemetry.dashboard.history import COARSE, FINE, History
from batcher.telemetry.dashboard.judgement import Trend, judged
from batcher.telemetry.dashboard.observation import Observer
from batcher.telemetry.dashboard.recorder import Recorder
from batcher.telemetry.dashboard.urgent import MOST_PARTITIONS
from batcher.telemetry.status import BufferStatus, Counts, InFlight, LastError, PartitionStatus, Status

A = Partition("orders", 0)


def observed(status: Status, at: float = 1000.0) -> dict[str, Any]:
    """Return what a worker would tell of a status, as it arrives."""
    found: dict[str, Any] = json.loads(json.dumps(Observer(lambda: status, Recorder(), clock=lambda: at)()))
    return found


def running(**more: Any) -> Status:
    return Status("running", **{"partitions": {A: PartitionStatus(10, 10, 0)}, **more})


def glance(status: Status, trend: Trend = Trend()) -> tuple[str, str, str]:  # noqa: B008 - frozen
    first = judged(observed(status), trend)[0]
    return first.level, first.title, first.why


@given(st.lists(st.floats(0.002, 1e6), min_size=1), st.sampled_from([0.5, 0.99]))
def test_an_age_that_is_read_off_is_right_to_five_percent(ages: list[float], share: float) -> None:
    counted = Ages()
    for age_s in ages:
        counted.add(age_s, 1)
    exact = sorted(ages)[max(0, -int(-len(ages) * share // 1) - 1)]
    found = counted.quantile(share)
    assert found is not None
    assert exact * 0.94 <= found <= exact * 1.06


def test_ages_of_several_add_up_and_none_are_none() -> None:
    one, other = Ages(), Ages()
    one.add(-5.0, 98)
    other.add(60.0, 2)
    total = added([one.counts, other.counts])
    assert total.quantile(0.5) == 0.001
    assert total.quantile(0.99) == pytest.approx(60, rel=0.05)
    assert Ages().quantile(0.5) is None


def test_a_day_takes_no_more_room_than_an_hour_and_the_hour_is_whole() -> None:
    history = History()
    for second in range(86_400):
        history.add(float(second), {"lag": float(second % 10), "written": 5.0, "retries": 1.0})
    columns = history.columns()
    times = [t for t in columns["t"] if t is not None]
    assert len(times) <= FINE + COARSE
    assert times == sorted(times)
    assert times[-1] == 86_399
    assert 3300 <= times[-1] - times[0] <= 3610
    # The coarse part: the worst lag, the mean speed, the sum of retries. What was never known is None.
    assert (columns["lag"][0], columns["written"][0], columns["retries"][0], columns["p50"][0]) == (
        9.0,
        5.0,
        10.0,
        None,
    )


def test_a_healthy_pipeline_is_called_so_with_how_far_it_is_behind() -> None:
    assert glance(running()) == ("ok", "Healthy", "everything is written that there is to read")
    behind = running(partitions={A: PartitionStatus(10, 10, 5000)})
    assert glance(behind, Trend(eta_s=20.0)) == (
        "ok",
        "Healthy",
        "5,000 records behind, and catching up: about 20 s to go",
    )
    assert glance(behind, Trend(behind_s=2.0))[2] == "5,000 records behind, which is 2 s of writing"


def test_a_target_that_refuses_comes_before_everything_else_with_its_reason() -> None:
    status = running(
        last_error=LastError("SinkUnavailable", "http://ch: connection refused", 42.0),
        in_flight=InFlight(3, "age", 10, 100, (Range(A, 0, 9),), 43.0, attempts=7),
        partitions={A: PartitionStatus(10, 0, 10, paused=True)},
    )
    found = judged(observed(status), Trend(dead=3))
    assert (found[0].level, found[0].title) == ("alarm", "Not writing")
    assert found[0].why == "http://ch: connection refused (for 42 s, tried 7 times)"
    assert [one.title for one in found[1:]] == ["Slower than the source", "Dead letters"]


def test_a_target_that_says_nothing_is_waited_for_after_two_seconds_and_a_warning_after_twenty() -> None:
    def waiting(age_s: float) -> Status:
        return running(in_flight=InFlight(3, "age", 10, 100, age_s=age_s))

    assert glance(waiting(1.9))[1] == "Healthy"
    assert glance(waiting(2.5))[:2] == ("busy", "Waiting for the target")
    assert glance(waiting(21.0))[0] == "warning"


@pytest.mark.parametrize(
    ("status", "trend", "expected"),
    [
        (Status("starting", waiting_for="the target to open"), Trend(), ("busy", "Starting")),
        (Status("draining", buffer=BufferStatus(rows=5)), Trend(), ("busy", "Stopping")),
        (Status("failed"), Trend(), ("alarm", "Failed")),
        (Status("stopped"), Trend(), ("busy", "Stopped")),
        (Status("running"), Trend(), ("busy", "Standing by")),
        (running(off_switch="held: paused by the page"), Trend(), ("warning", "Paused")),
        (running(off_switch="records are dropped: x"), Trend(), ("warning", "Dropping what comes")),
        (running(), Trend(dead=1), ("warning", "Running, with dead letters")),
        (running(partitions={A: PartitionStatus(lag=9000)}), Trend(lag_growth=5000), ("warning", "Falling behind")),
        (running(partitions={A: PartitionStatus(lag=9000)}), Trend(lag_growth=400), ("ok", "Healthy")),
        (running(partitions={A: PartitionStatus(lag=9000)}), Trend(lag_growth=5000, behind_s=2.0), ("ok", "Healthy")),
        (running(partitions={A: PartitionStatus(stopped="no target")}), Trend(), ("alarm", "1 partition not read")),
    ],
)
def test_the_first_glance_says_what_is_going_on(status: Status, trend: Trend, expected: tuple[str, str]) -> None:
    assert glance(status, trend)[:2] == expected


@pytest.mark.parametrize(
    ("one", "more", "doing"),
    [
        (PartitionStatus(10, 10, 0), {}, "is up to date"),
        (PartitionStatus(10, 10, 5), {}, "is being read"),
        (PartitionStatus(10, 5, 5), {}, "gathers a batch"),
        (PartitionStatus(None, None, None), {}, "waits for its first records"),
        (PartitionStatus(10, 5, 5), {"in_flight": InFlight(1, "age", 5, 9, (Range(A, 5, 9),))}, "is being written"),
        (
            PartitionStatus(10, 5, 5),
            {
                "in_flight": InFlight(1, "age", 5, 9, (Range(A, 5, 9),)),
                "last_error": LastError("SinkUnavailable", "away", 1.0),
            },
            "waits for the target",
        ),
        (PartitionStatus(10, 5, 5), {"last_error": LastError("SinkUnavailable", "a", 1.0)}, "waits behind the target"),
        (PartitionStatus(10, 10, 5, paused=True), {}, "not read: the buffer is full"),
        (PartitionStatus(10, 10, 5, paused=True), {"off_switch": "held: x"}, "held, see above"),
        (PartitionStatus(stopped="no target takes it"), {}, "stopped: no target takes it"),
    ],
)
def test_each_partition_says_what_it_does_or_why_nothing(one: PartitionStatus, more: Any, doing: str) -> None:
    [row] = observed(running(partitions={A: one}, **more))["partitions"]
    assert row["doing"] == doing


def test_of_very_many_partitions_those_are_shown_that_matter_and_all_are_counted() -> None:
    many = {Partition("orders", n): PartitionStatus(1, 1, n) for n in range(1000)}
    many[Partition("orders", 3)] = PartitionStatus(stopped="no target")
    seen = observed(running(partitions=many))
    shown = [row["partition"] for row in seen["partitions"]]
    assert len(shown) == MOST_PARTITIONS
    assert shown == sorted(shown)
    assert {3, 999} <= set(shown)
    assert (seen["partition_count"], seen["stopped_count"]) == (1000, 1)
    assert seen["lag"] == sum(range(1000)) - 3


def message_of(raw: bytes | None) -> tuple[str, Mapping[str, Any]]:
    assert raw is not None
    kind, data, *_ = raw.decode().split("\n")
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_a_page_gets_the_whole_picture_first_and_then_what_is_new() -> None:
    feed = Feed({"sink": "null"})
    feed.add(observed(running(counts=Counts(consumed=100, written=50)), 1000.0))
    mailbox = feed.subscribe()
    kind, hello = message_of(mailbox.take(feed.whole))
    assert (kind, hello["about"], hello["history"]["t"]) == ("hello", {"sink": "null"}, [1000.0])
    feed.add(observed(running(counts=Counts(consumed=300, written=150)), 1002.0))
    kind, tick = message_of(mailbox.take(feed.whole))
    assert kind == "tick"
    assert (tick["point"]["read"], tick["point"]["written"], tick["trend"]["written"]) == (100.0, 50.0, 50.0)


def test_a_page_that_does_not_read_costs_a_few_messages_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MAILBOX", 3)
    mailbox = Mailbox()
    assert mailbox.take(lambda: b"whole") == b"whole"
    for number in range(1000):
        mailbox.put(b"%d" % number)
        assert len(mailbox._messages) <= 3
    while (found := mailbox.take(lambda: b"whole", 0.0)) not in (b"whole", b""):
        pass
    assert found == b"whole" or mailbox._anew is False
    mailbox.close()
    assert mailbox.take(lambda: b"whole") is None


def test_an_estimate_needs_a_lag_that_clearly_falls() -> None:
    feed = Feed({})

    def at(second: int, lag: int) -> Mapping[str, Any]:
        feed.add(observed(running(partitions={A: PartitionStatus(1, 1, lag)}, counts=Counts(written=second)), second))
        return message_of(feed.whole())[1]["now"]["trend"]  # type: ignore[no-any-return]

    at(1000, 100_000)
    assert at(1005, 99_500)["eta_s"] is None
    assert at(1009, 55_000)["eta_s"] == pytest.approx(11.0, abs=0.1)
