"""NSQ's protocol V2 as bytes: commands, and the frames that a server sends.

frame     size of the rest (4 bytes) | type (4) | payload           all numbers are big-endian
message   nanoseconds since the epoch (8) | attempts (2) | id (16 hex digits) | body
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

MAGIC: Final = b"  V2"
OK: Final = b"OK"
HEARTBEAT: Final = b"_heartbeat_"
CLOSE_WAIT: Final = b"CLOSE_WAIT"
NOP: Final = b"NOP\n"
CLS: Final = b"CLS\n"

MAX_FRAME: Final = 256 << 20
"""A frame that says it is larger is none: the other side speaks something else. nsqd takes messages of 1 MB unless it
is told otherwise."""

_RESPONSE, _ERROR, _MESSAGE = 0, 1, 2
_HEAD: Final = struct.Struct(">ii")
_MESSAGE_HEAD: Final = struct.Struct(">qH16s")
_BODY_AT: Final = _HEAD.size + _MESSAGE_HEAD.size


class Garbled(Exception):
    """Report bytes that are not NSQ's protocol."""


class Delivery(NamedTuple):
    """Hold a message as nsqd sent it; `id` is unique for its server."""

    timestamp_ns: int
    attempts: int
    id: bytes
    body: bytes


class ServerReply(NamedTuple):
    """Hold a frame that is no message: `error` says which of the two other kinds it is."""

    text: bytes
    error: bool

    @property
    def code(self) -> str:
        """Return the first word: of an error its name."""
        return self.text.partition(b" ")[0].decode("ascii", "replace")

    @property
    def message(self) -> str:
        """Return the frame as one line for people."""
        return " ".join(self.text.decode("utf-8", "replace").split())[:300]


Frame: TypeAlias = Delivery | ServerReply


class FrameReader:
    """Put frames together from the pieces in which they come."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[Frame]:
        """Return the frames that are complete with this piece. Raise Garbled for what cannot be one."""
        rest = self._rest
        rest += piece
        frames: list[Frame] = []
        begin, end = 0, len(rest)
        with memoryview(rest) as view:
            while end - begin >= _HEAD.size:
                size, kind = _HEAD.unpack_from(rest, begin)
                if not 4 <= size <= MAX_FRAME or kind not in (_RESPONSE, _ERROR, _MESSAGE):
                    raise Garbled(f"a frame of type {kind} and {size} bytes")
                after = begin + 4 + size
                if after > end:
                    break
                if kind == _MESSAGE:
                    if size < 4 + _MESSAGE_HEAD.size:
                        raise Garbled(f"a message of {size} bytes")
                    timestamp_ns, attempts, name = _MESSAGE_HEAD.unpack_from(rest, begin + _HEAD.size)
                    frames.append(Delivery(timestamp_ns, attempts, name, bytes(view[begin + _BODY_AT : after])))
                else:
                    frames.append(ServerReply(bytes(view[begin + _HEAD.size : after]), kind == _ERROR))
                begin = after
        del rest[:begin]
        return frames


def identify(facts: Mapping[str, object]) -> bytes:
    """Return the command that says who we are and what we ask for."""
    return b"IDENTIFY\n" + _sized(json.dumps(facts).encode())


def subscribe(topic: str, channel: str) -> bytes:
    """Return the command that begins to read a channel."""
    return f"SUB {topic} {channel}\n".encode()


def ready(count: int) -> bytes:
    """Return the command that says how many messages may be in flight on its connection."""
    return b"RDY %d\n" % count


def finish(ids: Iterable[bytes]) -> bytes:
    """Return the commands that make nsqd forget messages."""
    return b"".join(b"FIN %b\n" % one for one in ids)


def touch(ids: Iterable[bytes]) -> bytes:
    """Return the commands that begin the timeouts of messages anew."""
    return b"".join(b"TOUCH %b\n" % one for one in ids)


def requeue(delays_ms: Iterable[tuple[bytes, int]]) -> bytes:
    """Return the commands that give messages back."""
    return b"".join(b"REQ %b %d\n" % one for one in delays_ms)


def publish(topic: str, bodies: Sequence[bytes]) -> bytes:
    """Return the command that stores several messages, all or none."""
    packed = struct.pack(">i", len(bodies)) + b"".join(map(_sized, bodies))
    return f"MPUB {topic}\n".encode() + _sized(packed)


def publish_later(topic: str, body: bytes, delay_ms: int) -> bytes:
    """Return the command that stores a message and delivers it after a while."""
    return f"DPUB {topic} {delay_ms}\n".encode() + _sized(body)


def _sized(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload
