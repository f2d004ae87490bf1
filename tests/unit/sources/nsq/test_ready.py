"""However connections come, go and do, no more messages are in flight than were allowed, and none starves."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.sources.nsq.ready import Flow, shares

MOST = 2500

flows = st.lists(
    st.builds(Flow, in_flight=st.integers(0, 50), ready=st.integers(0, 50), most=st.just(MOST), hungry=st.booleans()),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(st.integers(1, 400), flows, st.integers(0, 9))
def test_what_is_in_flight_and_what_may_come_never_exceed_the_whole(
    total: int, given_flows: list[Flow], turn: int
) -> None:
    new = shares(total, given_flows, turn)
    before = sum(max(one.ready, one.in_flight) for one in given_flows)
    after = sum(max(count, one.in_flight) for count, one in zip(new, given_flows, strict=True))

    assert min(new) >= 0
    assert after <= max(total, before)


@settings(deadline=None)
@given(st.integers(1, 400), st.lists(st.booleans(), min_size=1, max_size=6))
def test_after_some_rounds_the_whole_is_handed_out_and_nobody_has_nothing(total: int, hungry: list[bool]) -> None:
    new = [0] * len(hungry)
    for turn in range(3):
        new = shares(total, [Flow(0, one, MOST, busy) for one, busy in zip(new, hungry, strict=True)], turn)

    assert sum(new) <= total
    if total >= len(hungry):
        assert min(new) >= 1
        if not any(hungry) or all(hungry):
            assert sum(new) == total


def test_a_busy_server_gets_what_idle_ones_leave() -> None:
    new = [0, 0, 0]
    for _ in range(3):
        new = shares(300, [Flow(0, new[0], MOST, True), Flow(2, new[1], MOST, False), Flow(0, new[2], MOST, False)])

    assert new == [278, 12, 10]


def test_one_server_gets_everything_up_to_what_it_takes() -> None:
    assert shares(2500, []) == []
    assert shares(2500, [Flow(0, 0, MOST, False)]) == [2500]
    assert shares(5000, [Flow(0, 0, MOST, False)]) == [2500]


def test_with_fewer_messages_than_servers_each_has_its_turn() -> None:
    seen: set[int] = set()
    new = [0, 0, 0]
    for turn in range(6):
        new = shares(1, [Flow(0, one, MOST, False) for one in new], turn)
        assert sum(new) <= 1
        seen |= {place for place, count in enumerate(new) if count}

    assert seen == {0, 1, 2}


def test_a_new_server_waits_until_the_others_have_room() -> None:
    full = Flow(in_flight=100, ready=100, most=MOST, hungry=True)

    assert shares(100, [full, Flow(0, 0, MOST, False)])[1] == 0
    assert shares(100, [full._replace(in_flight=40, ready=50), Flow(0, 0, MOST, False)])[1] > 0
