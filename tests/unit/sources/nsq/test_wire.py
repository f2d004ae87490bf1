"""Frames are put together whatever the pieces they come in; what is no frame is refused."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.sources.nsq.wire import Delivery, FrameReader, Garbled, ServerReply, finish, publish, ready, requeue


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">ii", len(payload) + 4, kind) + payload


def message(name: bytes, body: bytes, attempts: int = 1, timestamp_ns: int = 10**18) -> bytes:
    return frame(2, struct.pack(">qH16s", timestamp_ns, attempts, name) + body)


STREAM = (
    frame(0, b"OK")
    + message(b"0123456789abcdef", b'{"a":1}', 3)
    + frame(1, b"E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight")
    + message(b"fedcba9876543210", b"")
    + frame(0, b"_heartbeat_")
)
FRAMES = [
    ServerReply(b"OK", error=False),
    Delivery(10**18, 3, b"0123456789abcdef", b'{"a":1}'),
    ServerReply(b"E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight", error=True),
    Delivery(10**18, 1, b"fedcba9876543210", b""),
    ServerReply(b"_heartbeat_", error=False),
]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    reader = FrameReader()
    found = [one for a, b in pairwise([0, *sorted(cuts), len(STREAM)]) for one in reader.feed(STREAM[a:b])]

    assert found == FRAMES


def test_a_byte_at_a_time_is_enough() -> None:
    reader = FrameReader()

    assert [one for byte in STREAM for one in reader.feed(bytes([byte]))] == FRAMES


@pytest.mark.parametrize(
    "bytes_of_something_else",
    [
        struct.pack(">ii", 3, 0),
        struct.pack(">ii", -1, 0),
        struct.pack(">ii", 1 << 30, 2),
        frame(7, b"x"),
        frame(2, b"too short for a message"),
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_what_is_no_frame_is_refused_and_not_waited_for(bytes_of_something_else: bytes) -> None:
    with pytest.raises(Garbled):
        FrameReader().feed(bytes_of_something_else)


def test_an_error_says_its_name_and_one_line() -> None:
    answer = ServerReply(b'E_BAD_TOPIC SUB topic name "a b"\nis not valid', error=True)

    assert answer.code == "E_BAD_TOPIC"
    assert answer.message == 'E_BAD_TOPIC SUB topic name "a b" is not valid'


def test_commands_are_as_nsqd_reads_them() -> None:
    assert finish([b"0123456789abcdef", b"fedcba9876543210"]) == b"FIN 0123456789abcdef\nFIN fedcba9876543210\n"
    assert requeue([(b"0123456789abcdef", 1500)]) == b"REQ 0123456789abcdef 1500\n"
    assert ready(17) == b"RDY 17\n"
    assert publish("orders", [b"ab", b"c"]) == (
        b"MPUB orders\n\x00\x00\x00\x0f\x00\x00\x00\x02\x00\x00\x00\x02ab\x00\x00\x00\x01c"
    )
