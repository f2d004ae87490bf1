"""The client of NSQ against a server that does what a test says: cut frames, silence, errors, what is no NSQ at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from batcher.errors import ConfigurationError, Unreachable
from batcher.sources.nsq.client import NsqClient
from batcher.sources.nsq.gateway import NsqGateway
from batcher.sources.nsq.link import Subscription
from batcher.sources.nsq.settings import address_of
from batcher.sources.receipts.gateway import Received
from tests.harness.scripted_nsqd import TERMS, ScriptedNsqd, Visitor

A, B = "000000000000000a", "000000000000000b"


def gateway_to(
    server: ScriptedNsqd, *, heartbeat_s: float = 10.0, timeout_s: float = 60.0, max_in_flight: int = 10
) -> NsqGateway:
    what = Subscription("orders", "loader", timeout_s, heartbeat_s=heartbeat_s)
    client = NsqClient(what, nsqd=[address_of(server.address, 0)], lookupd=[], max_in_flight=max_in_flight)
    return NsqGateway(client, what, max_in_flight=max_in_flight, longest_batch_s=1.0)


def received(gateway: NsqGateway, count: int = 1) -> list[Received]:
    found: list[Received] = []
    for _ in range(100):
        found += gateway.receive(100, 1 << 20, 0.2)
        if len(found) >= count:
            break
    return found


@pytest.fixture
def end() -> Iterator[threading.Event]:
    """Return what a scene waits for before it ends; set at the latest when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_message_that_comes_byte_by_byte_is_one_message() -> None:
    def scene(visitor: Visitor) -> None:
        visitor.greet()
        assert visitor.expect("RDY") == "RDY 10"
        whole = b"\x00\x00\x00\x1f\x00\x00\x00\x02" + (10**18).to_bytes(8, "big") + b"\x00\x02" + A.encode() + b"a"
        for byte in whole:
            visitor.send_bytes(bytes([byte]))
        visitor.send(0, b"_heartbeat_")
        visitor.expect("NOP")
        assert visitor.expect("FIN") == f"FIN {A}"
        visitor.expect("CLS")
        visitor.send(0, b"CLOSE_WAIT")
        assert visitor.command() == ""

    with ScriptedNsqd(scene) as server, closing(gateway_to(server)) as gateway:
        gateway.open()
        [one] = received(gateway)
        assert (one.id, one.value, one.attempt, one.timestamp_ms) == (A, b"a", 2, 10**12)
        assert gateway.acknowledge([one.receipt], 5.0) == []
        gateway.close()


def test_a_refused_fin_leaves_the_connection_open_and_is_told_as_lapsed() -> None:
    def scene(visitor: Visitor) -> None:
        visitor.greet()
        visitor.send_message(A, b"a")
        visitor.expect("FIN")
        visitor.send(1, f"E_FIN_FAILED FIN {A} failed ID not in flight".encode())
        visitor.send_message(B, b"b")
        assert visitor.expect("FIN") == f"FIN {B}"
        visitor.expect("CLS")
        visitor.send(0, b"CLOSE_WAIT")

    with ScriptedNsqd(scene) as server, closing(gateway_to(server)) as gateway:
        gateway.open()
        [first] = received(gateway)
        late = list(gateway.acknowledge([first.receipt], 5.0))
        [second] = received(gateway)
        late += gateway.acknowledge([second.receipt], 5.0)

        assert late == [first.receipt]
        gateway.close()


def test_a_refused_touch_is_told_and_its_message_is_not_ours_any_more() -> None:
    def scene(visitor: Visitor) -> None:
        visitor.greet()
        visitor.send_message(A, b"a")
        assert visitor.expect("TOUCH") == f"TOUCH {A}"
        visitor.send(1, f"E_TOUCH_FAILED TOUCH {A} failed ID not in flight".encode())
        visitor.send_message(B, b"b")
        assert visitor.expect("FIN") == f"FIN {B}"
        visitor.expect("CLS")
        visitor.send(0, b"CLOSE_WAIT")

    with ScriptedNsqd(scene) as server, closing(gateway_to(server)) as gateway:
        gateway.open()
        [first] = received(gateway)
        told = list(gateway.extend([first.receipt]))
        [second] = received(gateway)
        told += gateway.acknowledge([first.receipt, second.receipt], 5.0)

        assert set(told) == {first.receipt}
        gateway.close()


def test_heartbeats_are_answered_while_nothing_is_received() -> None:
    begun, answered = threading.Event(), threading.Event()

    def scene(visitor: Visitor) -> None:
        visitor.greet()
        assert visitor.expect("RDY") == "RDY 10"
        begun.set()
        assert visitor.expect("RDY") == "RDY 0"
        for _ in range(3):
            visitor.send(0, b"_heartbeat_")
            visitor.expect("NOP")
        answered.set()
        visitor.expect("CLS")
        visitor.send(0, b"CLOSE_WAIT")

    with ScriptedNsqd(scene) as server, closing(gateway_to(server)) as gateway:
        gateway.open()
        assert begun.wait(30.0)
        gateway.stop_receiving()
        assert answered.wait(30.0)
        gateway.close()


def test_what_waits_inside_is_touched_while_nothing_is_received() -> None:
    touched = threading.Event()

    def scene(visitor: Visitor) -> None:
        visitor.greet()
        visitor.expect("RDY")
        visitor.send_message(A, b"a")
        for _ in range(3):
            assert visitor.expect("TOUCH") == f"TOUCH {A}"
        touched.set()
        visitor.expect("CLS")
        visitor.send(0, b"CLOSE_WAIT")

    with ScriptedNsqd(scene) as server, closing(gateway_to(server, timeout_s=0.3)) as gateway:
        gateway.open()
        assert touched.wait(30.0)
        gateway.close()


def test_a_server_without_heartbeats_is_given_up_and_connected_to_again(end: threading.Event) -> None:
    def silent(visitor: Visitor) -> None:
        visitor.greet()
        visitor.send_message(A, b"a")
        while visitor.command():
            pass

    def alive(visitor: Visitor) -> None:
        visitor.greet()
        visitor.send_message(B, b"b")
        end.wait(30.0)

    with ScriptedNsqd(silent, alive) as server, closing(gateway_to(server, heartbeat_s=0.1)) as gateway:
        gateway.open()
        [first] = received(gateway)
        [second] = received(gateway)

        assert (first.value, second.value) == (b"a", b"b")
        assert gateway.acknowledge([first.receipt], 5.0) == [first.receipt], "its connection is gone"
        end.set()


def test_what_waits_inside_is_dropped_with_its_connection_and_what_is_no_frame_ends_one(end: threading.Event) -> None:
    gone = threading.Event()

    def broken(visitor: Visitor) -> None:
        visitor.greet()
        visitor.send_message(A, b"a")
        # Answered behind the message: it waits inside by then.
        visitor.send(0, b"_heartbeat_")
        visitor.expect("NOP")
        visitor.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while visitor.command():
            pass
        gone.set()

    def alive(visitor: Visitor) -> None:
        visitor.greet()
        visitor.send_message(B, b"b")
        end.wait(30.0)

    with ScriptedNsqd(broken, alive) as server, closing(gateway_to(server)) as gateway:
        gateway.open()
        assert gone.wait(30.0)
        [one] = received(gateway)

        assert one.value == b"b"
        end.set()


def test_leaving_gives_back_what_came_in_meanwhile() -> None:
    def scene(visitor: Visitor) -> None:
        visitor.greet()
        visitor.expect("CLS")
        visitor.send_message(A, b"a")
        visitor.send(0, b"CLOSE_WAIT")
        assert visitor.expect("REQ") == f"REQ {A} 0"
        assert visitor.command() == ""

    with ScriptedNsqd(scene) as server:
        gateway = gateway_to(server)
        gateway.open()
        gateway.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((1, b"E_BAD_BODY IDENTIFY msg timeout (1000000) is invalid"), "refuses us: E_BAD_BODY .*--nsq.msg-timeout"),
        ((1, b"E_AUTH_FIRST AUTH required"), "E_AUTH_FIRST.*does not do AUTH"),
    ],
)
def test_what_a_server_refuses_for_good_is_one_line_at_the_start(answer: tuple[int, bytes], expected: str) -> None:
    def scene(visitor: Visitor) -> None:
        visitor.expect("  V2IDENTIFY")
        visitor.send(*answer)

    with ScriptedNsqd(scene) as server, pytest.raises(ConfigurationError, match=expected):
        gateway_to(server).open()


def garbled(visitor: Visitor) -> None:
    visitor.send_bytes(b"SSH-2.0-OpenSSH_9.2\r\n")


def ended(visitor: Visitor) -> None:
    del visitor


def not_nsqd(visitor: Visitor) -> None:
    visitor.expect("  V2IDENTIFY")
    visitor.send(0, b"OK")


@pytest.mark.parametrize("scene", [garbled, ended, not_nsqd])
def test_a_server_that_is_not_nsqd_is_unreachable_with_a_reason(scene: Callable[[Visitor], None]) -> None:
    with (
        ScriptedNsqd(scene) as server,
        pytest.raises(Unreachable, match=r"no server of NSQ answers: 127\.0\.0\.1:\d+: "),
    ):
        gateway_to(server).open()


def test_a_batch_that_may_wait_longer_than_nsqd_ever_does_is_refused_at_the_start() -> None:
    def scene(visitor: Visitor) -> None:
        visitor.greet(terms={**TERMS, "max_msg_timeout": 1000})
        visitor.expect("CLS")
        visitor.send(0, b"CLOSE_WAIT")

    with (
        ScriptedNsqd(scene) as server,
        pytest.raises(ConfigurationError, match=r"back 1 s after.*lower batch\.max_wait"),
    ):
        gateway_to(server).open()
